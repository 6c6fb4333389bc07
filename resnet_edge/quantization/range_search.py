"""Ranges worth representing, from a histogram: what to clip so that the rest is resolved more finely.

Every range contains zero, which integer tensors have to represent exactly.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.quantization.histogram import Bins

if TYPE_CHECKING:
    from collections.abc import Callable

Floats: TypeAlias = NDArray[np.float64]
Limits: TypeAlias = tuple[float, float]

LEVELS = 255
"""Steps of the 8-bit grid that a range is cut into."""

ENTROPY_BINS = 2048
"""Linear bins of magnitudes that the entropy search works on, as TensorRT's calibration has them."""

ENTROPY_LEVELS = 128
"""Magnitudes that 8 bits tell apart."""

_LEAST_BOUND = 1 / 64
"""The error search tries bounds down to this part of the extreme."""

_CELLS = 2048
"""Parts of a range that the error search tells apart: each is an eighth to a quarter of a step."""


_TINY = 2.0**-126


def extremes(bins: Bins) -> Limits:
    """The smallest and the largest value, and zero."""
    return min(0.0, float(bins.low[0])), max(0.0, float(bins.high[-1]))


def percentile(bins: Bins, share: float) -> Limits:
    """Limits that leave out the outermost ``1 - share`` of the values, half of it on either side.

    A tensor without negative values keeps its low limit of zero, and all that is left out is at the top.
    """
    low, high = extremes(bins)
    cumulated = np.cumsum(bins.counts) / bins.counts.sum()
    outside = (1 - share) / (2 if low < 0 < high else 1)
    if high > 0:
        high = max(0.0, float(bins.high[np.searchsorted(cumulated, 1 - outside)]))
    if low < 0:
        low = min(0.0, float(bins.low[np.searchsorted(cumulated, outside, side="right")]))
    return low, high


def least_error(bins: Bins) -> Limits:
    """Limits with the least mean squared error between the values and their 8-bit integers.

    The error is that of rounding and of clipping together, on the grid that the limits lead to: zero on one
    of its points. One limit is searched at a time, first on a coarse and then on a fine scale; a limit of
    zero stays.
    """
    low, high = extremes(bins)
    bins = _merged(bins)
    for _ in range(2 if low < 0 < high else 1):
        if high > 0:
            high = _search(high, partial(rounding_error, bins, low))
        if low < 0:
            low = _search(low, partial(_error_down_to, bins, high))
    return low, high


def _error_down_to(bins: Bins, high: float, low: float) -> float:
    return rounding_error(bins, low, high)


def _search(extreme: float, error: Callable[[float], float]) -> float:
    """The bound between zero and ``extreme`` with the least error; of equal ones the widest."""
    coarse = extreme * np.geomspace(1, _LEAST_BOUND, 19)
    errors = [error(bound) for bound in coarse]
    best = int(np.argmin(errors))
    fine = np.linspace(coarse[max(best - 1, 0)], coarse[min(best + 1, len(coarse) - 1)], 13)
    errors = [error(bound) for bound in fine]
    return float(fine[int(np.argmin(errors))])


def rounding_error(bins: Bins, low: float, high: float) -> float:
    """Mean squared error of the values on the 8-bit grid of a range, zero on one of its points.

    Within a bin the values are taken as spread evenly. The error's square is then integrated in closed form:
    with x in steps and n the nearest point of the grid, its antiderivative is n / 12 + (x - n)**3 / 3, also
    where n is held at the grid's ends, that is where values are clipped.
    """
    step = (high - low) / LEVELS
    zero_point = round(-low / step)

    def antiderivative(x: Floats) -> Floats:
        nearest = np.clip(np.rint(x), -zero_point, LEVELS - zero_point)
        return np.asarray(nearest / 12 + (x - nearest) ** 3 / 3)

    start, end = bins.low / step, bins.high / step
    width = np.where(end > start, end - start, 1.0)
    squares = (antiderivative(end) - antiderivative(start)) / width
    return float(bins.counts @ squares / bins.counts.sum()) * step**2


def _merged(bins: Bins) -> Bins:
    """The same histogram with the bins of one cell as one; the values of the innermost cell are zero."""
    low, high = extremes(bins)
    # A power of two, so that cells begin and end where bins do.
    cell = 2.0 ** math.ceil(math.log2(max(-low, high, _TINY))) / _CELLS
    cells = np.where(bins.low < 0, np.ceil(bins.high / cell), np.floor(bins.low / cell))
    starts = np.flatnonzero(np.diff(cells, prepend=np.nan) != 0)
    ends = np.append(starts[1:], len(cells)) - 1
    inside = cells[starts] == 0
    return Bins(
        low=np.where(inside, 0.0, bins.low[starts]),
        high=np.where(inside, 0.0, bins.high[ends]),
        counts=np.add.reduceat(bins.counts, starts),
    )


def least_divergence(bins: Bins) -> Limits:
    """Limits whose quantized distribution tells most about the values' own.

    Of all bounds on the magnitude, the one with the least Kullback-Leibler divergence between the clipped
    distribution and its form in 128 levels (Migacz, "8-bit Inference with TensorRT", 2017). The histogram is
    of magnitudes, so both sides of a signed tensor get the same bound, or their own
    extreme where that is less.
    """
    low, high = extremes(bins)
    largest = max(-low, high)
    if largest == 0:
        return low, high
    counts = _linear(bins, largest)
    divergences = [
        _divergence(counts, kept) for kept in range(ENTROPY_LEVELS, ENTROPY_BINS + 1, ENTROPY_LEVELS // 8)
    ]
    kept = ENTROPY_LEVELS + int(np.argmin(divergences)) * (ENTROPY_LEVELS // 8)
    bound = largest * kept / ENTROPY_BINS
    return max(low, -bound), min(high, bound)


def _linear(bins: Bins, largest: float) -> Floats:
    """The histogram of magnitudes above zero in equal bins up to ``largest``."""
    edges = np.linspace(0, largest, ENTROPY_BINS + 1)
    total = np.zeros(ENTROPY_BINS)
    for sign in (bins.low > 0, bins.high < 0):
        inner = np.minimum(np.abs(bins.low[sign]), np.abs(bins.high[sign]))
        outer = np.maximum(np.abs(bins.low[sign]), np.abs(bins.high[sign]))
        order = np.argsort(inner)
        points = np.column_stack([inner[order], outer[order]]).reshape(-1)
        steps = np.column_stack([np.zeros(len(order)), bins.counts[sign][order]]).reshape(-1)
        if len(points):
            total += np.diff(np.interp(edges, points, np.cumsum(steps)))
    return total


def _divergence(counts: Floats, kept: int) -> float:
    """Kullback-Leibler divergence of keeping the first ``kept`` bins, in 128 levels."""
    clipped = counts[:kept].copy()
    occupied = clipped > 0
    level = np.arange(kept) * ENTROPY_LEVELS // kept
    sums = np.bincount(level, clipped, ENTROPY_LEVELS)
    filled = np.maximum(np.bincount(level, occupied, ENTROPY_LEVELS), 1)
    quantized = np.where(occupied, (sums / filled)[level], 0.0)
    clipped[-1] += counts[kept:].sum()
    p, q = clipped / clipped.sum(), quantized / max(quantized.sum(), 1e-300)
    both = (p > 0) & (q > 0)
    # What q holds impossible would make the divergence infinite; as in smoothed forms, it gets a tiny chance.
    missing = p[(p > 0) & (q == 0)]
    return float((p[both] * np.log(p[both] / q[both])).sum() + (missing * np.log(missing / 1e-9)).sum())
