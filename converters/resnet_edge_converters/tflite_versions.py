"""Which version of an operator needs which runtime: TensorFlow's ``versioning`` tables, as far as they apply.

A version says what a kernel must be able to do; a runtime refuses a version it does not know. So each
operator gets the least version that covers what it does, and old runtimes on devices keep working.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MINIMUM_RUNTIME: dict[tuple[str, int], str] = {
    ("ADD", 1): "1.5.0",
    ("AVERAGE_POOL_2D", 1): "1.5.0",
    ("CONCATENATION", 1): "1.5.0",
    ("CONV_2D", 1): "1.5.0",
    ("CONV_2D", 6): "2.9.0",
    ("DEPTHWISE_CONV_2D", 1): "1.5.0",
    ("DEPTHWISE_CONV_2D", 2): "1.12.0",
    ("FULLY_CONNECTED", 1): "1.5.0",
    ("HARD_SWISH", 1): "1.15.0",
    ("LEAKY_RELU", 1): "1.13.1",
    ("LOGISTIC", 1): "1.14.0",
    ("MAX_POOL_2D", 1): "1.5.0",
    ("MEAN", 1): "1.6.0",
    ("MUL", 1): "1.5.0",
    ("PAD", 1): "1.5.0",
    ("PADV2", 1): "1.9.0",
    ("PRELU", 1): "1.8.0",
    ("REDUCE_MAX", 1): "1.11.0",
    ("RELU", 1): "1.5.0",
    ("RELU6", 1): "1.5.0",
    ("RESHAPE", 1): "1.5.0",
    ("RESIZE_BILINEAR", 3): "2.2.0",
    ("RESIZE_NEAREST_NEIGHBOR", 3): "2.3.0",
    ("SOFTMAX", 1): "1.5.0",
    ("STRIDED_SLICE", 1): "1.6.0",
    ("SUB", 1): "1.6.0",
    ("TANH", 1): "1.14.0",
    ("TRANSPOSE", 1): "1.6.0",
}
"""The first TensorFlow Lite that has each operator at each version that the converter writes."""


def minimum_runtime(versions: Mapping[str, int]) -> str:
    """The first TensorFlow Lite that runs a file with these operators at these versions."""
    needed = [MINIMUM_RUNTIME[operator] for operator in versions.items()]
    return max(needed, key=lambda version: [int(number) for number in version.split(".")])
