"""Softmax without floating point, as TFLite's reference kernels compute it.

For int8 in 32-bit fixed-point arithmetic, for int16 by tables with interpolation. "Qi.f" below is an int64
array that stands for ``x / 2 ** f`` with i integer bits. Source of the algorithms: the published behaviour of
gemmlowp's fixed-point functions and of TFLite's tables.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.quantization.fixed_point import (
    Integers,
    Multiplier,
    divide_by_power,
    high_product,
    multiply_twice_rounded,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ONE = 2**31 - 1
"""The largest Q0.31, which stands for 1."""

DIFFERENCE_BITS = 5
SUM_BITS = 12

LEAST_POWER = -10.0
"""int16: the table of exp begins here; below, powers are as good as the one here."""

STEPS = 512
"""int16: intervals of a table."""


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


def softmax_int16(x: NDArray[np.signedinteger[Any]], scale: float) -> NDArray[np.int16]:
    """Softmax along the last axis; the result has scale 1/32768 and zero point 0."""
    below = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    by = Multiplier.of(scale / (-LEAST_POWER / 65535))
    powers = _look_up(multiply_twice_rounded(below, by) + 32767, _exponential_table())
    total = powers.sum(axis=-1, keepdims=True)
    # total = 2 ** (bits - 1) * (1 + rest): its reciprocal is that of 1 + rest, shifted.
    bits = np.frexp(total.astype(np.float64))[1].astype(np.int64)
    rest = ((total << (31 - bits)) + (1 << 13)) >> 14
    inverse = _look_up(rest - (1 << 15) - (1 << 16), _reciprocal_table())
    share = (powers * inverse + (1 << (bits - 2))) >> (bits - 1)
    return np.asarray(np.clip(share, 0, 32767), np.int16)


def _look_up(x: Integers, table: Integers) -> Integers:
    """Table values at x, clamped to int16: 7 bits of x interpolate between neighbours."""
    x = np.clip(x, -32768, 32767)
    index = (x >> 7) + STEPS // 2
    base = table[index]
    return np.asarray(base + (((table[index + 1] - base) * (x & 127) + 64) >> 7))


@cache
def _exponential_table() -> Integers:
    return _table(np.exp, LEAST_POWER, 0.0)


@cache
def _reciprocal_table() -> Integers:
    return _table(lambda x: 1 / (1 + x), 0.0, 1.0)


def _table(function: Callable[[NDArray[Any]], NDArray[Any]], low: float, high: float) -> Integers:
    """A function as Q0.15 at 513 points; each point takes half of the error in the middle behind it."""
    step = (high - low) / STEPS
    points = low + np.arange(STEPS) * step
    here = np.rint(function(points) * 2**15)
    middle = np.rint(function(points + step / 2) * 2**15)
    following = function(points + step) * 2**15
    error = np.floor((following + here) / 2 + 0.5) - middle
    bias = np.copysign(np.floor(np.abs(error) / 2 + 0.5), error)
    last = np.rint(function(np.array([high])) * 2**15)
    return np.asarray(np.clip(np.append(here - bias, last), -32768, 32767), np.int64)
