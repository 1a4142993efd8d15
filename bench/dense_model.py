"""Dense layers over 1,024 numbers, in tiles that requests share, and a tiny model: what numpy can answer too."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.model_manifest import Batching, ModelManifest
from protos.open_inference_pb2 import ModelInferRequest

SIZE, LAYERS = 1024, 4


def weights() -> list[NDArray[np.float32]]:
    """Draw the layers of the model, always the same."""
    drawn = np.random.default_rng(7)
    return [(drawn.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)).astype(np.float32) for _ in range(LAYERS)]


def expected(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answer as the model must: values [n, SIZE] -> [n, SIZE]."""
    for layer in weights():
        values = np.tanh(values @ layer)
    return values


def manifest(name: str, size: int, batching: Batching | None) -> ModelManifest:
    """Describe a model of `size` numbers in and out."""
    tensor = {"datatype": "FP32", "shape": [size]}
    return ModelManifest.model_validate(
        {
            "schema_version": 1,
            "identity": {"name": name, "version": "1", "title": name, "manufacturer": "Hilum bench"},
            "use": {"intended_use": "Measuring the service.", "research_use": "Not for use on patients."},
            "accepts": {
                "modalities": ["CT"],
                "body_part_missing": "accept",
                "max_oblique_deg": 45.0,
                "slices": {"least": 1},
            },
            "inputs": [{"name": "values", **tensor}],
            "outputs": [{"name": "answers", **tensor}],
            "memory": {"base_mb": 1, "bytes_per_voxel": 64},
            "licence": "Apache-2.0",
            "batching": batching,
        }
    )


def build(directory: Path) -> None:
    """Export the model with tiles and a tiny one."""
    import tensorflow as tf

    from training.export import export_bundle
    from training.parts import TileParts

    layers = [tf.constant(layer) for layer in weights()]

    def network(tiles: Any) -> dict[str, Any]:
        for layer in layers:
            tiles = tf.tanh(tf.matmul(tiles, layer))
        return {"many": tiles}

    parts = TileParts(lambda values: {"tiles": values[None]}, network, lambda many: {"answers": many[0]})
    export_bundle(parts, manifest("batched", SIZE, Batching(max_batch=16, max_delay_ms=2.0)), directory, None)
    export_bundle(lambda values: {"answers": values + 1}, manifest("tiny", 4, None), directory, None)


def request_of(model: str, values: NDArray[np.float32]) -> ModelInferRequest:
    """Write a request."""
    request = ModelInferRequest(model_name=model, raw_input_contents=[values.tobytes()])
    request.inputs.add(name="values", datatype="FP32", shape=values.shape)
    return request
