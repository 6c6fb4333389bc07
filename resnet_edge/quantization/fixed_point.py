"""Multiplication by a real number in integers only, as TFLite's kernels do it.

The number is stored as a 31-bit fraction and a power of two. Sources: Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 2.2, and the
published behaviour of gemmlowp's fixed-point functions. All arrays are int64 and hold values of the width
named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Integers: TypeAlias = NDArray[np.int64]

FRACTION_BITS = 31
SHORT_BITS = 15
LARGEST_SHORT = 2**SHORT_BITS - 1


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """``fraction * 2 ** (shift - 31)``, one or one a channel.

    Attributes:
        fraction: In [2 ** 30, 2 ** 31), or 0.
        shift: Power of two; negative for small numbers.
    """

    fraction: Integers
    shift: Integers

    @classmethod
    def of(cls, real: ArrayLike) -> Multiplier:
        """The nearest representable multipliers; below 2 ** -32 they become 0, as in TFLite."""
        mantissa, exponent = np.frexp(np.asarray(real, np.float64))
        fraction = np.floor(mantissa * 2.0**FRACTION_BITS + 0.5).astype(np.int64)
        shift = exponent.astype(np.int64)
        overflown = fraction == 1 << FRACTION_BITS
        fraction, shift = np.where(overflown, fraction >> 1, fraction), shift + overflown
        lost = shift < -FRACTION_BITS
        return cls(fraction=np.where(lost, 0, fraction), shift=np.where(lost, 0, shift))


def high_product(a: Integers, b: ArrayLike) -> Integers:
    """Product a * b / 2 ** 31 of 32-bit values, a half rounded up."""
    return (a * np.asarray(b, np.int64) + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS


def divide_by_power(x: Integers, exponent: ArrayLike) -> Integers:
    """Quotient x / 2 ** exponent, a half rounded away from zero."""
    exponent = np.asarray(exponent, np.int64)
    half = (np.int64(1) << exponent) >> 1
    # One less for negative values turns "a half up" into "a half away"; with exponent 0 nothing is rounded.
    return np.asarray((x + half - ((x < 0) & (half > 0))) >> exponent)


def multiply_twice_rounded(x: Integers, by: Multiplier) -> Integers:
    """Multiply 32-bit values: the product is rounded to 31 bits less, and again when it is shifted."""
    left, right = np.maximum(by.shift, 0), np.maximum(-by.shift, 0)
    return divide_by_power(high_product(x << left, by.fraction), right)


def multiply_shortened(x: Integers, by: Multiplier) -> Integers:
    """Multiply 48-bit values: the fraction is rounded to 15 bits, and the product once, a half up."""
    dropped = FRACTION_BITS - SHORT_BITS
    short = np.minimum((by.fraction + (1 << (dropped - 1))) >> dropped, LARGEST_SHORT)
    shift = SHORT_BITS - by.shift
    return np.asarray((x * short + (np.int64(1) << (shift - 1))) >> shift)
