"""The whole chain but the forward pass, beside a straightforward node in the same run.

A chest CT of 300 x 512 x 512 goes by C-STORE (DCMTK storescu) to the node, its voxels by gRPC to a service that returns
a ready mask, SEG and SR to a PACS (DCMTK storescp). Rounds of both nodes are interleaved; medians and their ratio are
printed as a Markdown table. Every round's voxels, masks and objects are checked against the phantom's truth.

    python -m bench.end_to_end [--rounds 5] [--slices 300] [--size 512] [--directory .bench]
"""

import argparse
import gc
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from pydicom import dcmread

from bench import hilum_node, naive_node, peers
from bench.disk import seconds_to_keep
from bench.stages import Stopwatch, cpu_line, ratio, table
from node.logs import configure
from node.results.evidence_writer import warm_up
from node.settings import LogSettings
from node.store.outbox import Outbox
from node.testing.phantom import NODULE_BASE, RESCALE_INTERCEPT, PhantomTruth, write_phantom

VOLUME_GOAL, CHAIN_GOAL = 20.0, 2.0


@dataclass(frozen=True)
class Course:
    """What all rounds share."""

    truth: PhantomTruth
    service_port: int
    pacs: Path
    pacs_port: int
    directory: Path

    @property
    def found(self) -> np.ndarray:
        return self.truth.labels > NODULE_BASE

    def send_study(self, port: int) -> None:
        peers.send_study(self.truth.files, port)


def naive_round(course: Course, directory: Path) -> Stopwatch:
    watch = Stopwatch()
    naive_node.receive(directory / "in", course.send_study, watch)
    with watch.stage("files to volume"):
        images, volume = naive_node.load(directory / "in")
    with watch.stage("gRPC there and mask back"):
        mask = naive_node.infer(volume, course.service_port)
    with watch.stage("findings"):
        labels, findings = naive_node.find(volume, mask, images[0])
    seg_path, sr_path = directory / "seg.dcm", directory / "sr.dcm"
    with watch.stage("SEG"):
        segmentation = naive_node.write_segmentation(images, labels, len(findings), seg_path)
    with watch.stage("SR"):
        naive_node.write_report(images, segmentation, findings, sr_path)
    with watch.stage("send"):
        naive_node.send([seg_path, sr_path], course.pacs_port)
    check(course, volume, labels, seg_path)
    return watch


def hilum_round(course: Course, directory: Path) -> Stopwatch:
    watch = Stopwatch()
    received = hilum_node.receive(directory, course.send_study, watch)
    client = hilum_node.client(course.service_port)
    with watch.stage("files to volume"):
        headers, volume = hilum_node.load([item.path for item in received])
    reading = hilum_node.read(volume, client, watch)
    evidence = hilum_node.write(reading, headers, Outbox(directory / "outbox"), watch)
    with watch.stage("send"):
        hilum_node.send(evidence, course.pacs_port)
    client.close()
    values = volume.voxels * volume.slope[:, None, None] + volume.intercept[:, None, None]
    seg_path = evidence.directory / next(item.file_name for item in evidence.objects if item.kind == "SEG")
    check(course, values, reading.findings.labels, seg_path)
    return watch


def check(course: Course, values: np.ndarray, labels: np.ndarray, segmentation: Path) -> None:
    """Hold voxels, findings, the SEG that was written and the PACS's copies against the phantom's truth."""
    for path, slice_values in list(zip(course.truth.files, values, strict=True))[::29]:
        assert np.array_equal(dcmread(path).pixel_array + RESCALE_INTERCEPT, slice_values), path
    assert np.array_equal(labels > 0, course.found)
    assert len(np.unique(labels)) == len(np.unique(course.truth.labels[course.found])) + 1
    assert dcmread(segmentation).pixel_array.sum() == np.count_nonzero(course.found)
    sent = list(course.pacs.iterdir())
    assert len(sent) == 2, sent
    for path in sent:
        path.unlink()


def run(course: Course, rounds: int) -> tuple[list[Stopwatch], list[Stopwatch], list[float]]:
    """Run both nodes once to warm them, then `rounds` times in turn; and what keeping the files alone costs."""
    naive: list[Stopwatch] = []
    ours: list[Stopwatch] = []
    disk: list[float] = []
    for number in range(rounds + 1):
        for kind, watches in ((naive_round, naive), (hilum_round, ours)):
            directory = Path(tempfile.mkdtemp(dir=course.directory))
            watch = kind(course, directory)
            shutil.rmtree(directory)
            gc.collect()
            print(f"round {number} {kind.__name__}: {watch.total:.2f} s", file=sys.stderr, flush=True)
            if number:
                watches.append(watch)
        disk.append(seconds_to_keep(course.truth.files, course.directory / "disk"))
    return naive, ours, disk[1:]


def measure(arguments: argparse.Namespace, directory: Path) -> str:
    """Run the benchmark in `directory` and return its report."""
    truth = write_phantom(directory / "study", slices=arguments.slices, size=arguments.size)
    mask = np.where(truth.labels > NODULE_BASE, np.uint8(255), np.uint8(0))
    np.save(directory / "mask.npy", mask)
    with (
        peers.ready_service(directory / "mask.npy", hilum_node.BUNDLE.digest) as service_port,
        peers.storescp(directory / "pacs") as pacs_port,
    ):
        course = Course(truth, service_port, directory / "pacs", pacs_port, directory)
        naive, ours, disk = run(course, arguments.rounds)
    volume, chain = ratio(naive, ours, "files to volume"), ratio(naive, ours)
    megabytes = sum(path.stat().st_size for path in truth.files) / 1e6
    return "\n".join(
        [
            f"{arguments.slices} x {arguments.size} x {arguments.size} CT, {megabytes:.0f} MB, "
            f"{len(truth.nodules)} findings; {arguments.rounds} interleaved rounds, median (least-most).",
            f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end, Python {platform.python_version()}.",
            "",
            table(naive, ours),
            "",
            cpu_line(naive, ours),
            f"Hilum acknowledges an instance when it is durable and indexed; the straightforward node syncs nothing. "
            f"Keeping the {arguments.slices} files durably (fsync, rename, directory fsync) alone took "
            f"{1000 * median(disk):.0f} ms ({1000 * min(disk):.0f}-{1000 * max(disk):.0f}) in {arguments.directory}.",
            "",
            f"Goals: files to volume {volume:.1f}x (>= {VOLUME_GOAL:g}), whole chain {chain:.1f}x (>= {CHAIN_GOAL:g}).",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    arguments = parser.parse_args()
    if absent := peers.missing_tools():
        parser.error(f"{', '.join(absent)} not installed. Remedy: scripts/system-packages, or apt-get install dcmtk")
    configure(LogSettings(level="warning"))
    warm_up()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        print(measure(arguments, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
