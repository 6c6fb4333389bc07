"""Which version of an operator needs which runtime: TensorFlow's ``versioning`` tables, as far as they apply.

A version says what a kernel must be able to do; a runtime refuses a version it does not know. So each
operator gets the least version that covers what it does, and old runtimes on devices keep working.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MINIMUM_RUNTIME: dict[tuple[str, int], str] = {
    ("ADD", 1): "1.5.0",
    ("ADD", 2): "1.14.0",
    ("ADD", 3): "2.4.0",
    ("AVERAGE_POOL_2D", 1): "1.5.0",
    ("AVERAGE_POOL_2D", 2): "1.14.0",
    ("AVERAGE_POOL_2D", 3): "2.3.0",
    ("CONCATENATION", 1): "1.5.0",
    ("CONCATENATION", 2): "1.14.0",
    ("CONCATENATION", 3): "2.3.0",
    ("CONV_2D", 1): "1.5.0",
    ("CONV_2D", 3): "1.14.0",
    ("CONV_2D", 4): "2.3.0",
    ("CONV_2D", 5): "2.4.0",
    ("CONV_2D", 6): "2.9.0",
    ("DEPTHWISE_CONV_2D", 1): "1.5.0",
    ("DEPTHWISE_CONV_2D", 2): "1.12.0",
    ("DEPTHWISE_CONV_2D", 3): "1.14.0",
    ("DEPTHWISE_CONV_2D", 5): "2.3.0",
    ("DEPTHWISE_CONV_2D", 6): "2.3.0",
    ("DEQUANTIZE", 2): "1.14.0",
    ("DEQUANTIZE", 3): "1.15.0",
    ("DEQUANTIZE", 5): "2.7.0",
    ("FULLY_CONNECTED", 1): "1.5.0",
    ("FULLY_CONNECTED", 4): "1.14.0",
    ("FULLY_CONNECTED", 7): "2.3.0",
    ("FULLY_CONNECTED", 12): "2.17.0",
    ("HARD_SWISH", 1): "1.15.0",
    ("LEAKY_RELU", 1): "1.13.1",
    ("LOGISTIC", 1): "1.14.0",
    ("LOGISTIC", 2): "1.14.0",
    ("LOGISTIC", 3): "2.3.0",
    ("MAX_POOL_2D", 1): "1.5.0",
    ("MAX_POOL_2D", 2): "1.14.0",
    ("MAX_POOL_2D", 3): "2.3.0",
    ("MEAN", 1): "1.6.0",
    ("MEAN", 2): "1.14.0",
    ("MEAN", 3): "2.4.0",
    ("MUL", 1): "1.5.0",
    ("MUL", 2): "1.14.0",
    ("MUL", 3): "1.15.0",
    ("MUL", 4): "2.3.0",
    ("PAD", 1): "1.5.0",
    ("PAD", 2): "1.14.0",
    ("PAD", 3): "2.4.0",
    ("PADV2", 1): "1.9.0",
    ("PADV2", 2): "1.14.0",
    ("PADV2", 3): "2.4.0",
    ("PRELU", 1): "1.8.0",
    ("QUANTIZE", 1): "1.14.0",
    ("QUANTIZE", 2): "1.15.0",
    ("REDUCE_MAX", 1): "1.11.0",
    ("REDUCE_MAX", 2): "1.14.0",
    ("REDUCE_MAX", 3): "2.5.0",
    ("RELU", 1): "1.5.0",
    ("RELU", 2): "2.1.0",
    ("RELU", 3): "2.5.0",
    ("RELU6", 1): "1.5.0",
    ("RELU6", 2): "1.14.0",
    ("RELU6", 3): "2.5.0",
    ("RESHAPE", 1): "1.5.0",
    ("RESIZE_BILINEAR", 3): "2.2.0",
    ("RESIZE_NEAREST_NEIGHBOR", 3): "2.3.0",
    ("SOFTMAX", 1): "1.5.0",
    ("SOFTMAX", 2): "1.14.0",
    ("SOFTMAX", 3): "2.3.0",
    ("STRIDED_SLICE", 1): "1.6.0",
    ("STRIDED_SLICE", 2): "1.14.0",
    ("SUB", 1): "1.6.0",
    ("TANH", 1): "1.14.0",
    ("TRANSPOSE", 1): "1.6.0",
}
"""The first TensorFlow Lite that has each operator at each version that the converter writes."""

_KERNEL_VERSIONS: dict[str, dict[str, int]] = {
    "ADD": {"int8": 2, "int16": 3},
    "AVERAGE_POOL_2D": {"int8": 2, "int16": 3},
    "CONCATENATION": {"int8": 2, "int16": 3},
    "CONV_2D": {"int8": 3, "int16": 4, "hybrid": 5},
    "DEPTHWISE_CONV_2D": {"int8": 3, "int16": 5, "hybrid": 6},
    "DEQUANTIZE": {"int8": 2, "int16": 3, "float16": 3},
    "FULLY_CONNECTED": {"int8": 4, "int16": 7, "hybrid": 12},
    "LOGISTIC": {"int8": 2, "int16": 3},
    "MAX_POOL_2D": {"int8": 2, "int16": 3},
    "MEAN": {"int8": 2, "int16": 3},
    "MUL": {"int8": 2, "int16": 4},
    "PAD": {"int8": 2, "int16": 3},
    "PADV2": {"int8": 2, "int16": 3},
    "QUANTIZE": {"to int16": 2},
    "REDUCE_MAX": {"int8": 2, "int16": 3},
    "RELU": {"int8": 2, "int16": 3},
    "RELU6": {"int8": 2, "int16": 3},
    "SOFTMAX": {"int8": 2, "int16": 3},
    "STRIDED_SLICE": {"int8": 2},
}
"""The versions that brought kernels for other types than float32; ``hybrid`` is int8 weights, per channel,
under float features."""


def kernel_version(operator: str, dtypes: Sequence[str]) -> int:
    """The least version of an operator whose kernels take tensors of these types.

    Args:
        operator: Its name in the schema.
        dtypes: The element types of its inputs in order, then of its output.
    """
    features, *others, result = dtypes
    kernel = features
    if features == "float32" and others and others[0] == "int8":
        kernel = "hybrid"
    elif operator == "QUANTIZE":
        kernel = f"to {result}"
    return _KERNEL_VERSIONS.get(operator, {}).get(kernel, 1)


def minimum_runtime(versions: Mapping[str, int]) -> str:
    """The first TensorFlow Lite that runs a file with these operators at these versions."""
    needed = [MINIMUM_RUNTIME[operator] for operator in versions.items()]
    return max(needed, key=lambda version: [int(number) for number in version.split(".")])
