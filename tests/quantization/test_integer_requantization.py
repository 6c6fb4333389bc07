"""Rounding against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_edge.quantization.fixed_point import Multiplier, divide_by_power, high_product
from resnet_edge.quantization.fixed_point_softmax import exponential, reciprocal
from resnet_edge.quantization.requantization import Rounding, requantize, round_real

INT32 = st.integers(-(2**31) + 1, 2**31 - 1)
# From far below one step of an accumulator to the largest multiplier that XNNPACK takes.
RATIOS = st.floats(2.0**-30, 255, width=32)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


def requantized(accumulator: int, ratio: float, rounding: Rounding) -> int:
    return int(requantize(np.array([accumulator], np.float64), np.array(ratio), rounding)[0])


@given(accumulator=st.integers(-(2**29), 2**29), ratio=RATIOS)
def test_even_is_the_exact_product_rounded_once(accumulator: int, ratio: float) -> None:
    # Python rounds a fraction's half to even.
    assert requantized(accumulator, ratio, Rounding.EVEN) == round(accumulator * Fraction(ratio))


@given(accumulator=st.integers(-(2**29), 2**29), ratio=RATIOS)
def test_away_is_the_exact_product_rounded_once(accumulator: int, ratio: float) -> None:
    assert requantized(accumulator, ratio, Rounding.AWAY) == half_away(accumulator * Fraction(ratio))


@given(accumulator=st.integers(-(2**23), 2**23), ratio=RATIOS)
def test_twice_is_the_product_by_the_fraction_then_the_shift(accumulator: int, ratio: float) -> None:
    mantissa, shift = math.frexp(ratio)
    fraction = half_up(Fraction(mantissa) * 2**31)
    first = half_up(Fraction((accumulator << max(shift, 0)) * fraction, 2**31))
    second = half_away(Fraction(first, 2 ** max(-shift, 0)))
    assert requantized(accumulator, ratio, Rounding.TWICE) == second


@given(accumulator=st.integers(-(2**45), 2**45), ratio=st.floats(2.0**-30, 127, width=32))
def test_short_is_the_product_by_a_15_bit_fraction(accumulator: int, ratio: float) -> None:
    mantissa, shift = math.frexp(ratio)
    fraction = min(half_up(Fraction(mantissa) * 2**15), 2**15 - 1)
    exact = Fraction(accumulator * fraction) * Fraction(2) ** (shift - 15)
    assert requantized(accumulator, ratio, Rounding.SHORT) == half_up(exact)


@given(accumulator=st.integers(-(2**23), 2**23), ratio=RATIOS)
def test_roundings_differ_by_one_step_at_most(accumulator: int, ratio: float) -> None:
    results = {requantized(accumulator, ratio, rounding) for rounding in (Rounding.EVEN, Rounding.TWICE)}
    # The 31-bit fraction is off by up to 2 ** -32 of the result, beside the second rounding.
    assert max(results) - min(results) <= 1 + abs(accumulator * ratio) * 2**-31


def test_rounding_twice_differs_from_rounding_once() -> None:
    """The first rounding makes a half of what is a little less."""
    ratio, accumulator = 1 / 4 - 2**-33, 2
    assert requantized(accumulator, ratio, Rounding.EVEN) == 0
    assert requantized(accumulator, ratio, Rounding.TWICE) == 1


@pytest.mark.parametrize(
    ("x", "even", "away"),
    [(0.5, 0, 1), (-0.5, 0, -1), (1.5, 2, 2), (-2.5, -2, -3), (0.49999999999999994, 0, 0)],
)
def test_halves(x: float, even: int, away: int) -> None:
    assert round_real(np.array([x]), Rounding.EVEN)[0] == even
    assert round_real(np.array([x]), Rounding.AWAY)[0] == away


@given(real=st.floats(2.0**-32, 2.0**8))
def test_a_multiplier_is_the_nearest_with_31_bits(real: float) -> None:
    by = Multiplier.of(real)
    assert 2**30 <= int(by.fraction) < 2**31
    stored = Fraction(int(by.fraction)) * Fraction(2) ** (int(by.shift) - 31)
    assert abs(stored - Fraction(real)) <= Fraction(2) ** (int(by.shift) - 32)


def test_multipliers_too_small_for_any_accumulator_are_zero() -> None:
    by = Multiplier.of([2.0**-40, 0.0])
    assert by.fraction.tolist() == by.shift.tolist() == [0, 0]


@given(a=INT32, b=INT32)
def test_high_product(a: int, b: int) -> None:
    assert high_product(np.array([a]), b)[0] == half_up(Fraction(a * b, 2**31))


@given(x=INT32, exponent=st.integers(0, 31))
def test_divide_by_power(x: int, exponent: int) -> None:
    assert divide_by_power(np.array([x]), exponent)[0] == half_away(Fraction(x, 2**exponent))


def test_fixed_point_functions_are_near_the_real_ones() -> None:
    x = np.linspace(-(2**31) + 1, 0, 10001).astype(np.int64)
    # A Taylor series to the fourth power at 1/8 from its centre leaves (1/8) ** 5 / 120.
    np.testing.assert_allclose(exponential(x) / 2**31, np.exp(x / 2**26), atol=3e-7)
    x = np.linspace(0, 2**31 - 1, 10001).astype(np.int64)
    # Each of Newton's three steps squares an error of at most 1/17: below 2 ** -31, but for roundings.
    np.testing.assert_allclose(reciprocal(x) / 2**31, 1 / (1 + x / 2**31), atol=2e-8)
