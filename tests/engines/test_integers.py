"""Real numbers at the border of integer artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.engines.integers import IntegerForm

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_rounds_to_the_nearest_and_ties_to_even() -> None:
    form = IntegerForm(dtype=np.int8, scale=0.5, zero_point=3)
    values = np.array([0, 0.1, 0.25, 0.75, -0.25, -0.3, 1], np.float32)
    # 0.25 / 0.5 and 0.75 / 0.5 lie half-way: to 0 and to 2.
    np.testing.assert_array_equal(form.quantized(values), np.array([3, 3, 3, 5, 3, 2, 5], np.int8))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_out_of_range_is_the_end_of_the_range(dtype: type) -> None:
    form = IntegerForm(dtype=dtype, scale=1.0, zero_point=0)
    limits = np.iinfo(dtype)
    values = np.array([-1e9, 1e9, -np.inf, np.inf], np.float32)
    np.testing.assert_array_equal(form.quantized(values), [limits.min, limits.max] * 2)
    assert form.quantized(values).dtype == dtype


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_every_integer_comes_back(dtype: type) -> None:
    limits = np.iinfo(dtype)
    form = IntegerForm(dtype=dtype, scale=0.037, zero_point=(limits.min + limits.max) // 2 + 9)
    integers: NDArray[np.integer] = np.arange(limits.min, limits.max + 1).astype(dtype)
    assert form.real(integers).dtype == np.float32
    np.testing.assert_array_equal(form.quantized(form.real(integers)), integers)


def test_camera_pixels_stay_what_they_are() -> None:
    form = IntegerForm(dtype=np.uint8, scale=1.0, zero_point=0)
    pixels = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(form.quantized(pixels), pixels)
