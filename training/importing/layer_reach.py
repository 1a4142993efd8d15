"""How far a Keras model looks around a voxel, read off its layers."""

from typing import Any

_POINTWISE_NAMES = """
InputLayer Activation ActivityRegularization Add Average BatchNormalization Concatenate Dropout ELU GaussianDropout
GaussianNoise AlphaDropout Identity LeakyReLU Maximum Minimum Multiply ReLU Rescaling SpatialDropout1D
SpatialDropout2D SpatialDropout3D Subtract
"""
_POINTWISE = frozenset(_POINTWISE_NAMES.split())
_PLAIN = {f"Conv{axes}D" for axes in (1, 2, 3)}
_CONVOLUTIONS = _PLAIN | {f"{kind}Conv{axes}D" for kind in ("Depthwise", "Separable") for axes in (1, 2)}


def layer_reach(model: Any) -> int | None:
    """Return the voxels around one that its answer depends on, along the axis where they are most.

    None where a layer has strides, pools, cuts its border off or looks at everything, or is of a kind not known here.
    """
    reached: dict[int, int] = {}
    for layer in model.layers:
        own = _own_reach(layer)
        try:
            taken, given = _listed(layer.input), _listed(layer.output)
        except (AttributeError, ValueError):  # a layer that stands in several places has no one input
            return None
        if own is None or any(id(tensor) not in reached for tensor in taken if type(layer).__name__ != "InputLayer"):
            return None
        around = max((reached.get(id(tensor), 0) for tensor in taken), default=0)
        reached |= {id(tensor): around + own for tensor in given}
    return max((reached.get(id(tensor), 0) for tensor in model.outputs), default=None)


def _own_reach(layer: Any) -> int | None:
    name = type(layer).__name__
    if name in _POINTWISE:
        return 0
    if name not in _CONVOLUTIONS or set(layer.strides) != {1} or layer.padding != "same":
        return None
    spans: list[int] = [step * (size - 1) for size, step in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    return max(span - span // 2 for span in spans)


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]
