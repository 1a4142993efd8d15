"""What it saves to send slices while their study arrives: from the last C-STORE to the answer, with and without.

    python -m bench.early_upload [--rounds 5] [--slices 300] [--size 512] [--megabytes 118] [--directory .bench]

A chest CT goes by C-STORE (DCMTK storescu) to the node's listener, its voxels to a real service whose memory is not
mapped (`regions = "upload"`), over loopback and over a line of a stated bandwidth (118 MB/s is what 1 Gbit/s leaves for
content). The model only marks bright voxels. The study counts as ready when the early sender has nothing left to look
at, as it does after `completion.settle_s`; both ways then read the files, build the volume, and ask. Rounds of all ways
are interleaved; medians with least and most. Every answer is checked against the phantom.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from pydicom import dcmread

from bench import peers
from bench.mask_model import BRIGHT, MASK, write_mask_bundle
from bench.serving_peers import service
from bench.slow_line import slow_line
from node.domain.instances import ReceivedInstance
from node.domain.orientation import reorient
from node.early.sender import EarlySender, EarlyTerms
from node.imaging.headers import read_headers
from node.imaging.volume_builder import build_volume
from node.index.engine import open_index
from node.inference_client.client import InferenceClient
from node.intake.listener import Listener
from node.logs import configure
from node.settings import InferenceSettings, ListenerSettings, LogSettings
from node.store.instance_files import InstanceStore
from node.testing.phantom import PhantomTruth, write_phantom
from protos.model_manifest import ModelBundle, open_bundle

TERMS = EarlyTerms(least_bytes=0, slices=512, max_bytes=4 << 30, idle_s=300.0)
MOST_BYTES = 4 << 30
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Way:
    """One line to the service, with slices sent early or not."""

    line: str
    address: str
    is_early: bool

    @property
    def name(self) -> str:
        return f"{self.line}, {'early' if self.is_early else 'whole'}"


@dataclass
class Times:
    """Seconds of each round."""

    receive: list[float] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        return f"| {name} | {_shown(self.receive)} | {_shown(self.answer)} |"


def _shown(seconds: list[float]) -> str:
    return f"{1000 * median(seconds):.0f} ({1000 * min(seconds):.0f}-{1000 * max(seconds):.0f})"


def one_round(way: Way, truth: PhantomTruth, bundle: ModelBundle, directory: Path) -> tuple[float, float]:
    """Send the study and ask about it; give the seconds of receiving, and from then to the answer."""
    received: list[ReceivedInstance] = []
    with ExitStack() as parts:
        client = parts.enter_context(
            closing(InferenceClient(InferenceSettings(endpoint=way.address, regions="upload")))
        )
        sender = EarlySender(client, [bundle], TERMS)
        parts.callback(sender.stop)
        sender.start()
        port = _listening(parts, directory, received, sender.note if way.is_early else lambda _: None)
        begun = time.perf_counter()
        peers.send_study(truth.files, port)
        receive = time.perf_counter() - begun
        _await(lambda: sender.is_idle)
        begun = time.perf_counter()
        volume = build_volume(read_headers([item.path for item in received]), max_bytes=MOST_BYTES)
        turned, _ = reorient(volume, bundle.manifest.accepts.axes, bundle.manifest.accepts.max_oblique_deg)
        mask = client.infer(bundle, turned).outputs["mask"]
        answer = time.perf_counter() - begun
        assert np.array_equal(mask, turned.voxels > BRIGHT), f"{way.name}: the answer is wrong"
    first = dcmread(truth.files[0]).pixel_array
    assert np.array_equal(volume.voxels[0], first), f"{way.name}: the volume is wrong"
    return receive, answer


def _listening(
    parts: ExitStack,
    directory: Path,
    received: list[ReceivedInstance],
    note: Callable[[ReceivedInstance], None],
) -> int:
    store = InstanceStore(directory / "store")
    engine = open_index(directory / "index.sqlite", store_directory=store.directory)
    parts.callback(engine.dispose)

    def stored(instance: ReceivedInstance) -> None:
        received.append(instance)
        note(instance)

    listener = Listener(
        ListenerSettings(ae_title="NODE", port=0),
        store,
        engine,
        low_disk_bytes=0,
        on_stored=stored,
        on_closed=lambda _: None,
    )
    _, port = listener.start()
    parts.callback(listener.stop)
    return port


def _await(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "the early sender came to no end"
        time.sleep(0.005)


def measure(arguments: argparse.Namespace, directory: Path) -> str:
    """Run the rounds in `directory` and return the report."""
    truth = write_phantom(directory / "study", slices=arguments.slices, size=arguments.size)
    bundle = open_bundle(write_mask_bundle(directory / "models"))
    with ExitStack() as open_until_end:
        running = open_until_end.enter_context(service(directory / "models", "--model", MASK.identity.name))
        port = open_until_end.enter_context(slow_line(int(running.tcp.rpartition(":")[2]), arguments.megabytes))
        lines = {"loopback": running.tcp, f"{arguments.megabytes:g} MB/s": f"127.0.0.1:{port}"}
        ways = [Way(line, address, early) for line, address in lines.items() for early in (False, True)]
        times = {way: Times() for way in ways}
        for number in range(arguments.rounds + 1):
            for way in ways:
                place = Path(tempfile.mkdtemp(dir=directory))
                receive, answer = one_round(way, truth, bundle, place)
                shutil.rmtree(place)
                if number:  # the first one warms everything
                    times[way].receive.append(receive)
                    times[way].answer.append(answer)
    megabytes = sum(path.stat().st_size for path in truth.files) / 1e6
    rows = [times[way].row(way.name) for way in ways]
    return "\n".join(
        [
            f"{arguments.slices} x {arguments.size} x {arguments.size} CT, {megabytes:.0f} MB; {arguments.rounds} "
            f"interleaved rounds, median (least-most) in ms; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}.",
            "",
            "| line, voxels sent | receive | from ready to answer |",
            "|---|---:|---:|",
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--megabytes", type=float, default=118.0, help="bandwidth of the slow line, MB/s")
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    arguments = parser.parse_args()
    if absent := peers.missing_tools():
        parser.error(f"{', '.join(absent)} not installed. Remedy: scripts/system-packages, or apt-get install dcmtk")
    configure(LogSettings(level="warning"))
    arguments.directory.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        print(measure(arguments, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
