"""Streaming histograms of tensors whose range nobody knows beforehand.

The bins are those of the float format itself: numbers with the same sign, exponent and leading mantissa bits
share one. So the range grows by powers of two without rebinning, every octave is equally well resolved, the
result does not depend on how the images were batched, and the bin of a number is one shift of its bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

MANTISSA_BITS = 8
"""256 bins an octave: at the top of a range, a bin is 1/2 to 1 step of the 8-bit grid wide."""

SAMPLES_AN_IMAGE = 2**14
"""Elements of one image's tensor that are counted at most: more moves no range that is worth choosing."""

_SHIFT = 23 - MANTISSA_BITS
_MAGNITUDE = (1 << 31 - _SHIFT) - 1
_FLOOR = (127 - 40) << MANTISSA_BITS
"""The bin of 2**-40: smaller magnitudes count as zero, so that the arrays stay short."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """A finished histogram: disjoint bins in ascending order, with ``low == high == 0`` for zeros.

    Attributes:
        low: Lower edges.
        high: Upper edges.
        counts: Elements in each, all above 0.
    """

    low: Floats
    high: Floats
    counts: Floats


def count(elements: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many elements of a contiguous (M,) are in each bin from the floor on: (bins, 2).

    The first column is for positive numbers, the second one for negative; the bins end with the last that has
    some.
    """
    bits = elements.view(np.int32) >> _SHIFT
    magnitude = np.maximum(bits & _MAGNITUDE, _FLOOR) - _FLOOR
    counts = np.bincount(2 * magnitude + (bits < 0))
    return np.pad(counts, (0, len(counts) % 2)).reshape(-1, 2)


class Histogram:
    """The counts of a stream of float32 numbers."""

    def __init__(self) -> None:
        self._counts = np.zeros((1, 2), np.int64)

    def add(self, counts: NDArray[np.int64]) -> None:
        """Take in what :func:`count` found."""
        if len(counts) > len(self._counts):
            self._counts, counts = counts.copy(), self._counts
        self._counts[: len(counts)] += counts

    def bins(self) -> Bins:
        """The histogram so far."""
        up, down = (np.flatnonzero(column) + 1 for column in self._counts[1:].T)
        (up_low, up_high), (down_low, down_high) = _edges(up), _edges(down)
        zeros = self._counts[0].sum(keepdims=True)
        zeros = zeros[zeros > 0]
        zero = np.zeros(len(zeros))
        return Bins(
            low=np.concatenate([-down_high[::-1], zero, up_low]),
            high=np.concatenate([-down_low[::-1], zero, up_high]),
            counts=np.concatenate([self._counts[down[::-1], 1], zeros, self._counts[up, 0]]).astype(float),
        )


def sampled(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """The elements of a tensor (N, ...) that are counted, one after the other: every k-th one of each image.

    k shares no factor with the number of elements, so that every row, column and channel has its share.
    """
    size = math.prod(tensor.shape[1:])
    stride = -(-size // SAMPLES_AN_IMAGE)
    while math.gcd(stride, size) > 1:
        stride += 1
    return np.ascontiguousarray(tensor.reshape(len(tensor), size)[:, ::stride]).reshape(-1)


def _edges(keys: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Lower and upper edges of positive bins, counted from the floor."""
    bits = ((keys + _FLOOR)[:, None] + np.arange(2)).astype(np.uint32) << np.uint32(_SHIFT)
    edges = bits.view(np.float32).astype(np.float64)
    return edges[:, 0], edges[:, 1]
