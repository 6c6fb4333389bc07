"""How accumulators become activations again: the rounding of each kernel set and operator, as a table.

Runtimes agree on what a quantized operator means and differ in how they round its result. Two kernel sets are
kept apart:

``tflite-reference``
    LiteRT 2.3's reference kernels, bit for bit. One exception: their table for the int16 sigmoid follows no
    formula; the rounded function stands for it, one step away at most.
``single``
    The real result, rounded once, a half to even: what XNNPACK and ONNX Runtime compute in float32, each in
    an order of its own. They differ from it by one step where the real result is all but a half; exact halves
    go another way in XNNPACK's addition (up) and in ONNX Runtime's addition and product (to even after the
    zero point is added). LiteRT has no XNNPACK kernel for AVERAGE_POOL_2D and none for int16; there its own
    kernels' rounding stays.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from resnet_edge.graph.operators import (
    Add,
    AveragePool2D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    GlobalAveragePool,
    Input,
    Multiply,
    Operator,
)
from resnet_edge.quantization.fixed_point import Multiplier, multiply_shortened, multiply_twice_rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from resnet_edge.quantization.spec import ActivationType

Kernels: TypeAlias = Literal["tflite-reference", "single"]

Float64: TypeAlias = "NDArray[np.float64]"


class Rounding(enum.StrEnum):
    """How a real multiple of an integer is rounded to an integer."""

    EVEN = "once, a half to even"
    AWAY = "once, a half away from zero"
    TWICE = "twice, with a 31-bit multiplier"
    SHORT = "once, a half up, with a 15-bit multiplier"


_REFERENCE: Mapping[type[Operator], Rounding] = {
    Input: Rounding.AWAY,
    Conv2D: Rounding.TWICE,
    DepthwiseConv2D: Rounding.TWICE,
    Dense: Rounding.AWAY,
    Add: Rounding.TWICE,
    Multiply: Rounding.TWICE,
    AveragePool2D: Rounding.AWAY,
    GlobalAveragePool: Rounding.TWICE,
    Elementwise: Rounding.TWICE,
}

ROUNDING: Mapping[tuple[Kernels, ActivationType], Mapping[type[Operator], Rounding]] = {
    ("tflite-reference", "int8"): _REFERENCE,
    # A 64-bit accumulator leaves the fraction half the bits.
    ("tflite-reference", "int16"): {**_REFERENCE, Conv2D: Rounding.SHORT, DepthwiseConv2D: Rounding.SHORT},
    ("single", "int8"): dict.fromkeys(_REFERENCE, Rounding.EVEN),
    ("single", "int16"): dict.fromkeys(_REFERENCE, Rounding.EVEN),
}
"""The operators that round; all others only move integers or compare them."""


def round_real(x: NDArray[np.floating], rounding: Rounding) -> Float64:
    """Real numbers to whole ones, for the two roundings that know real numbers."""
    exact = x.astype(np.float64)
    if rounding is Rounding.EVEN:
        return np.rint(exact)
    # Not floor(x + 0.5): for the largest number below a half, the sum is rounded up to 1.
    whole: Float64 = np.trunc(exact)
    return whole + np.copysign(np.abs(exact - whole) >= 0.5, exact)


def requantize(accumulator: Float64, ratio: NDArray[np.floating], rounding: Rounding) -> Float64:
    """``accumulator * ratio`` as whole numbers.

    Args:
        accumulator: Whole numbers below 2 ** 53, (..., channels).
        ratio: Scale of the accumulator over that of the result: one, or one a channel.
        rounding: How.

    Returns:
        Whole numbers, not yet clamped. ``EVEN`` is exact where ratio is a float32 and the accumulator below
        2 ** 29: their product then fits a float64.
    """
    if rounding in (Rounding.EVEN, Rounding.AWAY):
        return round_real(accumulator * np.asarray(ratio, np.float64), rounding)
    multiply = multiply_twice_rounded if rounding is Rounding.TWICE else multiply_shortened
    return multiply(accumulator.astype(np.int64), Multiplier.of(ratio)).astype(np.float64)
