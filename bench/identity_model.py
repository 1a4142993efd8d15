"""A model that only changes the datatype of its voxels, in slabs: what is left of a request is the way there and back.

`python -m bench.identity_model DIR` writes its bundle; TensorFlow stays out of the process that measures.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from protos.model_manifest import Slabs, Tensor
from tests.bundles import threshold_manifest

SLICES = 16
"""Of 512 x 512: what TensorFlow reads and writes of a slab (12 MB) fits the second or third cache."""
_DESCRIBED = threshold_manifest()
IDENTITY = _DESCRIBED.model_copy(
    update={
        "identity": _DESCRIBED.identity.model_copy(update={"name": "identity", "title": "identity"}),
        "inputs": (Tensor(name="image", datatype="INT16", shape=(-1, -1, -1)),),
        "outputs": (Tensor(name="mask", datatype="UINT8", shape=(-1, -1, -1)),),
        "findings": (),
        "slabs": Slabs(slices=SLICES, along=("image",)),
    }
)


def write_identity_bundle(directory: Path) -> Path:
    """Export it into a models directory in a child process and give the bundle's folder."""
    subprocess.run([sys.executable, "-m", "bench.identity_model", str(directory)], check=True)
    return directory / IDENTITY.identity.name / IDENTITY.identity.version


def _main(directory: Path) -> None:
    import numpy as np
    import tensorflow as tf

    from training.export import export_bundle
    from training.parts import SlabParts

    def converted(image: Any) -> dict[str, Any]:
        return {"mask": tf.cast(image, tf.uint8)}

    golden = {"image": np.random.default_rng(1).integers(0, 256, (2 * SLICES + 1, 8, 8), np.int16)}
    export_bundle(SlabParts(converted), IDENTITY, directory, golden)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
