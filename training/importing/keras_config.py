"""The classes that a Keras configuration may name: layers of image networks that ship with Keras.

Nothing is among them that runs code of the file, opens other files or comes from elsewhere.
"""

from collections.abc import Iterator
from typing import Any

from training.importing.errors import SourceRefused

_LAYERS_NAMES = """
InputLayer Activation ActivityRegularization Add AlphaDropout Average AdaptiveAveragePooling1D
AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D
Attention AdditiveAttention AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization CenterCrop
Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Convolution1D Convolution2D
Convolution3D Convolution2DTranspose Convolution3DTranspose Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D
DepthwiseConv2D Dot Dropout ELU EinsumDense Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D
GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
GroupNormalization GroupQueryAttention Identity LayerNormalization LeakyReLU MaxPooling1D MaxPooling2D MaxPooling3D
Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization ReLU RepeatVector Rescaling
Reshape Resizing SeparableConv1D SeparableConv2D Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D
SpectralNormalization Subtract ThresholdedReLU UnitNormalization UpSampling1D UpSampling2D UpSampling3D
ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
LAYERS = frozenset(_LAYERS_NAMES.split())
"""Layers; those that look up words in files, draw at random or sound are not among them, nor recurrent ones."""

_PARTS_NAMES = """
Functional Sequential Model
Constant Zeros Ones Identity IdentityInitializer Orthogonal OrthogonalInitializer GlorotUniform GlorotNormal
HeUniform HeNormal LecunUniform LecunNormal RandomUniform RandomNormal TruncatedNormal VarianceScaling
L1 L2 L1L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm
DTypePolicy FloatDTypePolicy Policy
__keras_tensor__ __tensor__ __numpy__ __slice__ __ellipsis__
"""
_PARTS = frozenset(_PARTS_NAMES.split())
_CALLS_NAMES = """
Absolute Add Average Clip Concatenate Divide DivideNoNan Elu Exp ExpandDims Gelu GetItem HardSigmoid HardSilu
LeakyRelu Log Log1p LogSoftmax Matmul Max Maximum Mean Min Minimum Multiply Negative Pad Power Reciprocal Relu Relu6
Repeat Reshape Rsqrt Selu Sigmoid Silu Softmax Softplus Softsign Split Sqrt Square Squeeze Stack Std Subtract Sum
Tanh Transpose TrueDivide Var
"""
_CALLS = frozenset(_CALLS_NAMES.split())
"""Calls of `keras.ops` that stand in a Functional model as layers."""

_TAKEN = LAYERS | _PARTS | _CALLS
_RUNS_CODE = {
    "Lambda": "runs Python code out of the file",
    "__lambda__": "runs Python code out of the file",
    "TFSMLayer": "loads another SavedModel unseen",
    "JaxLayer": "runs code of another framework",
    "FlaxLayer": "runs code of another framework",
    "TorchModuleWrapper": "runs a pickle",
    "TFOpLambda": "is a TensorFlow call of Keras 2, which Keras 3 cannot read",
    "SlicingOpLambda": "is a TensorFlow call of Keras 2, which Keras 3 cannot read",
}
_COMPILED = "compile_config"
_REMEDY = (
    "Remedy: rebuild the model from Keras' own layers, or export it as a SavedModel where it runs, whose graph is "
    "checked op by op"
)


def refuse_foreign_classes(config: Any, what: str) -> None:
    """Raise SourceRefused naming the first layer or object that is not on the list.

    How the model was compiled is left out: it is never loaded.

    Args:
        config: the parsed configuration of a model.
        what: the file's name, for messages.
    """
    if not isinstance(config, dict) or config.get("class_name") not in ("Functional", "Sequential", "Model"):
        kind = config.get("class_name") if isinstance(config, dict) else type(config).__name__
        raise SourceRefused(
            f"{what}: its configuration is of a {kind!r:.80}, expected Functional or Sequential. A model class "
            f"of one's own is code that is not in the file. {_REMEDY}"
        )
    for item in _objects({key: value for key, value in config.items() if key != _COMPILED}):
        _refuse(item, what)


def _refuse(item: dict[str, Any], what: str) -> None:
    name = item["class_name"]
    inner = item.get("config")
    known = inner.get("name") if isinstance(inner, dict) else None
    place = f"{what}: layer {known!r:.80}" if isinstance(known, str) else f"{what}: an object"
    if name in _RUNS_CODE:
        raise SourceRefused(f"{place} is a {name}, which {_RUNS_CODE[name]}. {_REMEDY}")
    module = item.get("module")
    foreign = module is not None and not f"{module}.".startswith("keras.")
    registered = item.get("registered_name")
    custom = isinstance(registered, str) and registered != name
    if foreign or custom or name not in _TAKEN:
        shown = registered if custom else f"{module}.{name}" if foreign else name
        raise SourceRefused(f"{place} is of the class {shown!r:.120}, which is none that is taken. {_REMEDY}")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary that names a class, without recursion."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                yield {**item, "class_name": str(item["class_name"])}
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
