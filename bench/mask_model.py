"""A model that marks what is brighter than a stored value, in slabs: its answer deflates as real label maps do.

`python -m bench.mask_model DIR` writes its bundle; TensorFlow stays out of the process that measures.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.identity_model import IDENTITY, SLICES

BRIGHT = 1300
"""Bone, in the phantom's stored values."""
MASK = IDENTITY.model_copy(
    update={"identity": IDENTITY.identity.model_copy(update={"name": "mask", "title": "mask"})},
)


def write_mask_bundle(directory: Path) -> Path:
    """Export it into a models directory in a child process and give the bundle's folder."""
    subprocess.run([sys.executable, "-m", "bench.mask_model", str(directory)], check=True)
    return directory / MASK.identity.name / MASK.identity.version


def _main(directory: Path) -> None:
    import numpy as np
    import tensorflow as tf

    from training.export import export_bundle
    from training.parts import SlabParts

    def marked(image: Any) -> dict[str, Any]:
        return {"mask": tf.cast(image > BRIGHT, tf.uint8)}

    golden = {"image": np.random.default_rng(1).integers(0, 2 * BRIGHT, (2 * SLICES + 1, 8, 8), np.int16)}
    export_bundle(SlabParts(marked), MASK, directory, golden)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
