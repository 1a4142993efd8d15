"""What batching gives 32 clients of a small classifier, and whether every answer belongs to its request.

`python -m bench.serving_batching` builds a MobileNetV2 (width 0.35, 96 x 96 x 3, random weights) twice: with its parts,
so that tiles of several requests share a run, and whole. The whole one is served by a service that runs one request at
a time, as is the default, and by one that runs two. 32 clients in 4 processes, which share the cores with the service,
ask each in turn, round by round; what the service itself spent is its CPU time a request. Then the same clients send
requests of 10,000 different contents to a model that doubles voxels, and check each answer bit by bit.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.serving_clients import DOUBLER, WRONG_BEYOND, Asked, Clients, clients
from bench.serving_peers import Service, service
from bench.tables import print_machine, print_table
from protos.model_manifest import Batching, ModelManifest, open_bundle
from tests.part_bundles import part_bundles

SIZE, WIDTH, CLASSES, POOL = 96, 0.35, 8, 64
PROCESSES, THREADS = 4, 8
BATCHED, WHOLE = "batched", "whole"
TERMS = Batching(max_batch=16, max_delay_ms=2.0)
_TICKS = os.sysconf("SC_CLK_TCK")


def _manifest(name: str, batching: Batching | None) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "schema_version": 1,
            "identity": {"name": name, "version": "1", "title": name, "manufacturer": "Hilum bench"},
            "use": {"intended_use": "Measuring the service.", "research_use": "Not for use on patients."},
            "accepts": {"modalities": ["CT"], "body_part_missing": "accept"},
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [SIZE, SIZE, 3]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [CLASSES]}],
            "memory": {"base_mb": 8, "bytes_per_voxel": 256},
            "licence": "Apache-2.0",
            "batching": batching,
        }
    )


def build(directory: Path) -> None:
    """Export the network with its parts and whole; run in a process of its own, so that keras stays out of this one."""
    import keras
    import tensorflow as tf

    from training.export import export_bundle
    from training.parts import TileParts

    keras.utils.set_random_seed(7)
    network = keras.applications.MobileNetV2((SIZE, SIZE, 3), WIDTH, include_top=False, weights=None, pooling="avg")
    # Drawn at random the features of all images are nearly alike; spread out, a mix-up of answers is seen.
    images = _images().astype(np.float32) / 127.5 - 1
    features = np.asarray(network(images))
    drawn = np.random.default_rng(8).normal(size=(features.shape[1], CLASSES)).astype(np.float32)
    middle, width = features.mean(0), (features @ drawn).std(0)

    def answer(tiles: Any) -> dict[str, Any]:
        return {"many": tf.matmul(network(tiles) - middle, drawn / width)}

    parts = TileParts(
        lambda image: {"tiles": (tf.cast(image, tf.float32) / 127.5 - 1)[None]},
        answer,
        lambda many: {"scores": many[0]},
    )
    export_bundle(parts, _manifest(BATCHED, TERMS), directory, None)
    export_bundle(lambda image: parts(image=image), _manifest(WHOLE, None), directory, None)


def _images() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 255, (POOL, SIZE, SIZE, 3), np.uint8)


def write_pool(models: Path, path: Path) -> None:
    """Let the whole network answer each image alone in this process, and see that all answers are far apart."""
    from inference.runners.loading import load_runner
    from inference.runners.whole import Predictor

    predictor = load_runner(open_bundle(models / WHOLE / "1"))
    assert isinstance(predictor, Predictor)
    images = _images()
    answers = np.stack([predictor.predict({"image": image})["scores"] for image in images])
    apart = np.abs(answers[:, None] - answers[None]).max(-1) + np.diag(np.full(POOL, np.inf))
    assert apart.min() > 20 * WRONG_BEYOND, f"answers are as near as {apart.min():.2g}"
    np.savez(path, images=images, answers=answers)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one way: what the clients got, and the seconds of CPU that the service spent."""

    asked: Asked
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return (self.asked.requests - self.asked.failed) / self.asked.seconds


def cpu_seconds(pid: int) -> float:
    """Read the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rounds_of(ways: dict[str, Callable[[], Round]], rounds: int) -> dict[str, list[Round]]:
    """Let the ways take turns."""
    for once in ways.values():
        once()
    found: dict[str, list[Round]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, once in ways.items():
            found[name].append(once())
    return found


def way(running: Service, asking: Clients, model: str, requests: int) -> Callable[[], Round]:
    """Give what asks a model once round."""

    def once() -> Round:
        before = cpu_seconds(running.pid)
        asked = asking.ask(model, requests)
        assert not asked.wrong, f"{model}: {asked.wrong} wrong answers"
        return Round(asked, cpu_seconds(running.pid) - before)

    return once


def report(found: dict[str, list[Round]]) -> None:
    """Print the table and the ratios."""
    rows = []
    for name, rounds in found.items():
        cuts = statistics.quantiles([value for one in rounds for value in one.asked.each_ms], n=100)
        speed, cpu = (_median(rounds, of) for of in (lambda one: one.per_second, _cpu_ms))
        failed = sum(one.asked.failed for one in rounds)
        rows.append((name, f"{speed:.0f}", f"{cuts[49]:.0f}", f"{cuts[98]:.0f}", f"{cpu:.2f}", str(failed)))
    header = ("way", "answers a second", "p50, ms", "p99, ms", "CPU of the service, ms an answer", "refused or failed")
    print_table(header, rows)
    first, *others = found
    for other in others:
        for what, of in (("Answers a second", lambda one: one.per_second), ("CPU an answer", _cpu_ms)):
            each = [of(ours) / of(theirs) for ours, theirs in zip(found[first], found[other], strict=True)]
            print(f"{what}, {first} / {other}: {statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f}).")


def _cpu_ms(one: Round) -> float:
    return one.cpu_s / max(1, len(one.asked.each_ms)) * 1e3


def _median(rounds: list[Round], of: Callable[[Round], float]) -> float:
    return statistics.median(of(one) for one in rounds)


def throughput(models: Path, pool: Path, options: argparse.Namespace) -> None:
    """Measure the classifier, batched and not."""
    with ExitStack() as opened:
        ways = {}
        for name, model, concurrency in (
            ("batched", BATCHED, "1"),
            ("whole, one at a time", WHOLE, "1"),
            ("whole, two at a time", WHOLE, "2"),
        ):
            limits = ("--model", model, "--queue", str(PROCESSES * THREADS), "--concurrency", concurrency)
            running = opened.enter_context(service(models, *limits))
            asking = opened.enter_context(clients(running.tcp, pool, PROCESSES, THREADS))
            ways[name] = way(running, asking, model, options.requests)
        report(rounds_of(ways, options.rounds))


def identity(pool: Path, contents: int) -> None:
    """Send requests of different contents and count the wrong answers."""
    with (
        service(part_bundles() / "good", "--model", DOUBLER) as running,
        clients(running.tcp, pool, PROCESSES, THREADS) as asking,
    ):
        asked = asking.ask(DOUBLER, contents)
    print(
        f"\n{asked.requests} requests of different contents by {PROCESSES * THREADS} clients at once, batched: "
        f"{asked.wrong} wrong answers, {asked.failed} refused or failed."
    )
    assert not asked.wrong
    assert not asked.failed


def main() -> None:
    """Build, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1600, help="of each way in each round")
    parser.add_argument("--contents", type=int, default=10_000)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build is not None:
        build(options.build)
        return
    print_machine()
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        models, pool = Path(folder) / "models", Path(folder) / "pool.npz"
        models.mkdir()
        subprocess.run([sys.executable, "-m", "bench.serving_batching", "--build", str(models)], check=True)
        write_pool(models, pool)
        throughput(models, pool, options)
        identity(pool, options.contents)


if __name__ == "__main__":
    main()
