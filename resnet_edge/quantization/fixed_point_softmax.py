"""Softmax in 32-bit fixed-point arithmetic, as TFLite's reference kernel computes it for int8.

"Qi.f" below is an int64 array that stands for ``x / 2 ** f`` with i integer bits. Source of the algorithms:
the published behaviour of gemmlowp's fixed-point functions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.quantization.fixed_point import Integers, Multiplier, divide_by_power, high_product

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONE = 2**31 - 1
"""The largest Q0.31, which stands for 1."""

DIFFERENCE_BITS = 5
SUM_BITS = 12


def _fixed(real: float, integer_bits: int = 0) -> int:
    return math.floor(real * 2.0 ** (31 - integer_bits) + 0.5)


def softmax_int8(x: NDArray[np.signedinteger[Any]], scale: float) -> NDArray[np.int8]:
    """Softmax along the last axis; the result has scale 1/256 and zero point -128."""
    below = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    by = Multiplier.of(min(scale * 2.0 ** (31 - DIFFERENCE_BITS), 2.0**31 - 1))
    shift = int(by.shift)
    # Differences beyond the range of Q5.26 count as minus infinity.
    counted = below >= -math.floor((2**DIFFERENCE_BITS - 1) * 2.0 ** (31 - DIFFERENCE_BITS) / 2**shift)
    powers = exponential(high_product(np.where(counted, below, 0) << shift, by.fraction))
    powers = np.where(counted, powers, 0)
    total = divide_by_power(powers, SUM_BITS).sum(axis=-1, keepdims=True)
    # total = 2 ** (over - 1 + SUM_BITS bits) * (1 + rest): its reciprocal is that of 1 + rest, shifted.
    bits = np.frexp(total.astype(np.float64))[1].astype(np.int64)
    inverse = reciprocal((total << (32 - bits)) - (1 << 31))
    over = SUM_BITS - (32 - bits)
    share = divide_by_power(high_product(inverse, powers), over + 31 - 8)
    return np.clip(share - 128, -128, 127).astype(np.int8)


def exponential(x: Integers) -> Integers:
    """exp(x) as Q0.31 for x <= 0 in Q5.26.

    The last quarter is a Taylor series around -1/8, the rest a product of known powers, one a bit.
    """
    quarter = 1 << (31 - DIFFERENCE_BITS - 2)
    last = (x & (quarter - 1)) - quarter
    result = _exponential_near_zero(last << DIFFERENCE_BITS)
    rest = last - x
    for power in range(-2, DIFFERENCE_BITS):
        factor = _fixed(math.exp(-(2.0**power)))
        set_bit = rest & (1 << (31 - DIFFERENCE_BITS + power))
        result = np.where(set_bit != 0, high_product(result, factor), result)
    return np.where(x == 0, ONE, result)


def _exponential_near_zero(x: Integers) -> Integers:
    """exp(x) as Q0.31 for x in [-1/4, 0) as Q0.31."""
    middle = _fixed(math.exp(-1 / 8))
    t = x + (1 << 28)
    t2 = high_product(t, t)
    t3, t4 = high_product(t2, t), high_product(t2, t2)
    # t4 / 24 + t3 / 6 + t2 / 2, in the order in which the kernel rounds.
    tail = divide_by_power(high_product(divide_by_power(t4, 2) + t3, _fixed(1 / 3)) + t2, 1)
    return middle + high_product(t + tail, middle)


def reciprocal(x: Integers) -> Integers:
    """1 / (1 + x) as Q0.31 for x in [0, 1) as Q0.31: Newton-Raphson from 48/17 - 32/17 d."""
    half = (x + ONE + 1) >> 1
    estimate = _fixed(48 / 17, 2) + high_product(half, _fixed(-32 / 17, 2))
    for _ in range(3):
        error = (1 << 29) - high_product(half, estimate)
        estimate = estimate + (high_product(estimate, error) << 2)
    return np.asarray(np.clip(estimate << 1, -(2**31), ONE))
