"""1,000 loads and unloads of a tiny model: does the process grow? Prints anonymous memory and its slope per cycle.

`python -m bench.serving_reload [CYCLES]`
"""

import gc
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from protos.model_manifest import ModelManifest

KIB = 1024
NAME = "tiny"


def anonymous_bytes() -> int:
    """Give the process's resident anonymous memory."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * KIB
    raise OSError("/proc/self/status has no RssAnon")


def manifest() -> ModelManifest:
    """Describe a model that adds one to each voxel."""
    return ModelManifest.model_validate(
        {
            "schema_version": 1,
            "identity": {"name": NAME, "version": "1", "title": "Tiny", "manufacturer": "Hilum"},
            "use": {"intended_use": "Measurements.", "research_use": "Not for use on patients."},
            "accepts": {"modalities": ["CT"], "body_part_missing": "accept"},
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 16, 16]}],
            "outputs": [{"name": "map", "datatype": "FP32", "shape": [-1, 16, 16]}],
            "memory": {"base_mb": 1, "bytes_per_voxel": 16},
            "licence": "Apache-2.0",
        }
    )


def slope(samples: list[int]) -> float:
    """Fit bytes per cycle by least squares."""
    return float(np.polyfit(np.arange(len(samples)), np.array(samples, float), 1)[0])


def main(cycles: int) -> None:
    """Measure after each cycle and print the figures."""
    import tensorflow as tf

    from inference.log import configure_log
    from inference.repository import ModelRepository
    from training.export import export_bundle

    configure_log("error")
    weights = tf.constant(np.random.default_rng(1).normal(size=(16, 16)).astype(np.float32))
    with tempfile.TemporaryDirectory(prefix="hilum-reload-") as folder:
        export_bundle(lambda image: {"map": tf.matmul(image, weights) + 1}, manifest(), Path(folder), None)
        gc.collect()
        gc.freeze()  # as the service does before it loads
        repository = ModelRepository(Path(folder))
        repository.load_all()
        samples, begun = [anonymous_bytes()], time.perf_counter()
        for _ in range(cycles):
            repository.unload(NAME)
            repository.load(NAME)
            samples.append(anonymous_bytes())
    seconds = time.perf_counter() - begun
    half = cycles // 2
    print(
        f"{cycles} cycles in {seconds:.0f} s; RssAnon {samples[0] / KIB:.0f} KiB before, {samples[-1] / KIB:.0f} after"
    )
    for name, part in (("first", samples[1 : half + 1]), ("last", samples[half + 1 :])):
        grown = f"{part[0] / KIB:.0f} to {part[-1] / KIB:.0f} KiB"
        print(f"{name} {len(part)}: {grown}, slope {slope(part):.0f} bytes a cycle")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
