"""The closed set of classes and functions that a model file may name.

Keras builds a model by looking up each class that the file's configuration names. Everything listed here only
computes on tensors: no class reads a file, opens a connection, imports a module or runs code kept in the
configuration. What is not listed is not built. An entry is added when the graph import learns to translate a
layer, never to let a file pass.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYERS = frozenset(
    {
        "Activation",
        "ActivityRegularization",
        "Add",
        "AlphaDropout",
        "AutoContrast",
        "AveragePooling2D",
        "BatchNormalization",
        "CenterCrop",
        "Concatenate",
        "Conv2D",
        "Cropping2D",
        "Dense",
        "DepthwiseConv2D",
        "Dropout",
        "Flatten",
        "GaussianDropout",
        "GaussianNoise",
        "GlobalAveragePooling2D",
        "GlobalMaxPooling2D",
        "Identity",
        "LeakyReLU",
        "MaxPooling2D",
        "Multiply",
        "Normalization",
        "PReLU",
        "Permute",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomCrop",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
        "ReLU",
        "Rescaling",
        "Reshape",
        "Resizing",
        "SeparableConv2D",
        "Softmax",
        "SpatialDropout2D",
        "Subtract",
        "UpSampling2D",
        "ZeroPadding2D",
    }
)
"""Public layers with a meaning in the graph, and those that do nothing at inference."""

OPERATIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "keras.src.ops.core": frozenset({"Cast", "ConvertToTensor", "StopGradient"}),
        "keras.src.ops.nn": frozenset(
            {
                "AveragePool",
                "BatchNorm",
                "Conv",
                "DepthwiseConv",
                "HardSigmoid",
                "HardSilu",
                "LeakyRelu",
                "MaxPool",
                "Relu",
                "Relu6",
                "Sigmoid",
                "Silu",
                "Softmax",
            }
        ),
        "keras.src.ops.numpy": frozenset(
            {
                "Add",
                "Amax",
                "Clip",
                "Concatenate",
                "Copy",
                "Divide",
                "ExpandDims",
                "GetItem",
                "Matmul",
                "Max",
                "Maximum",
                "Mean",
                "Multiply",
                "Negative",
                "Pad",
                "Reshape",
                "Squeeze",
                "Stack",
                "Subtract",
                "Tanh",
                "Transpose",
                "TrueDivide",
            }
        ),
        "keras.src.activations.activations": frozenset({"ReLU"}),
    }
)
"""What a functional model records for ``keras.ops``, ``keras.activations`` and operators on tensors."""

_MODELS = frozenset({"Functional", "Model", "Sequential"})
_INITIALIZERS = frozenset(
    {
        "Constant",
        "GlorotNormal",
        "GlorotUniform",
        "HeNormal",
        "HeUniform",
        "Identity",
        "IdentityInitializer",
        "LecunNormal",
        "LecunUniform",
        "Ones",
        "Orthogonal",
        "OrthogonalInitializer",
        "RandomNormal",
        "RandomUniform",
        "TruncatedNormal",
        "VarianceScaling",
        "Zeros",
    }
)
_REGULARIZERS = frozenset({"L1", "L1L2", "L2", "OrthogonalRegularizer"})
_CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
_POLICIES = frozenset({"DTypePolicy", "FloatDTypePolicy"})

KNOWN_CLASSES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "keras": _MODELS | {"DTypePolicy", "FloatDTypePolicy"},
        "keras.models": _MODELS,
        "keras.src.models.functional": frozenset({"Functional"}),
        "keras.src.models.model": frozenset({"Model"}),
        "keras.src.models.sequential": frozenset({"Sequential"}),
        "keras.layers": LAYERS | {"InputLayer"},
        **OPERATIONS,
        "keras.initializers": _INITIALIZERS,
        "keras.regularizers": _REGULARIZERS,
        "keras.constraints": _CONSTRAINTS,
        "keras.dtype_policies": _POLICIES,
        "keras.mixed_precision": frozenset({"Policy"}),
    }
)
"""Class names by the module that a Keras 3 configuration gives for them."""

_KNOWN_WITHOUT_MODULE = (
    _MODELS | LAYERS | {"InputLayer", "Policy"} | _INITIALIZERS | _REGULARIZERS | _CONSTRAINTS | _POLICIES
)

ACTIVATIONS = frozenset(
    {
        "celu",
        "elu",
        "exponential",
        "gelu",
        "glu",
        "hard_sigmoid",
        "hard_silu",
        "hard_swish",
        "leaky_relu",
        "linear",
        "log_softmax",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softmax",
        "softplus",
        "softsign",
        "swish",
        "tanh",
    }
)
"""Functions of ``keras.activations``; those without a meaning in the graph are refused by the import."""

_ACTIVATION_MODULES = frozenset({"builtins", "keras.activations"})


def is_known(module: str | None, class_name: str) -> bool:
    """Whether Keras may be asked to build this class.

    Args:
        module: As the configuration gives it; None where it gives none (HDF5 files).
        class_name: The class's name there.
    """
    if module is None:
        return class_name in _KNOWN_WITHOUT_MODULE
    return class_name in KNOWN_CLASSES.get(module, ())


def is_known_function(module: str | None, name: str) -> bool:
    """Whether a function that a configuration names is one of ``keras.activations``."""
    return (module is None or module in _ACTIVATION_MODULES) and name in ACTIVATIONS


def supported_layers() -> str:
    """The supported layers on one line, for error messages; augmentation under one name."""
    named = sorted(name for name in LAYERS if not name.startswith("Random"))
    return ", ".join([*named, "Random... augmentation"]) + "; keras.ops and operators on tensors"
