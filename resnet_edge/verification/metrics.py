"""Figures of outputs that more than one part of the package needs, each computed in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TOP = 5
"""Ranks that count for top-5."""

_CHUNK_ELEMENTS = 1 << 20
"""Outputs looked at in one go: 8 MB in float64, so that arrays on disk may be larger than memory."""


def sqnr_db(reference: NDArray[np.floating[Any]], outputs: NDArray[np.floating[Any]]) -> float:
    """Signal to quantization noise ratio, 10 log10(sum r^2 / sum (r - o)^2), over all elements."""
    signal = np.sum(np.square(reference, dtype=np.float64))
    return ratio_db(float(signal), float(np.sum(np.square(reference - outputs, dtype=np.float64))))


def ratio_db(signal: float, noise: float) -> float:
    """A ratio of powers in dB: infinite without noise; noise without signal gives some -3000, a number."""
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(max(signal, np.finfo(np.float64).tiny)) - np.log10(noise))


def reported_sqnr(reference: NDArray[np.floating[Any]], outputs: NDArray[np.floating[Any]]) -> float | None:
    """The SQNR as reports hold it; outputs with NaN or infinity among them are noise without signal."""
    ratio = sqnr_db(reference, outputs)
    return ratio_db(0.0, 1.0) if np.isnan(ratio) or np.isneginf(ratio) else finite_or_none(ratio)


def finite_or_none(ratio: float) -> float | None:
    """The ratio as reports hold it: None for equal outputs, because JSON has no infinity."""
    return None if np.isposinf(ratio) else ratio


def rank_of_class(outputs: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The place (0 is the first) of one class an image; of equal outputs the lowest index comes first.

    Args:
        outputs: (N, classes).
        classes: (N,).
    """
    own = np.take_along_axis(outputs, classes[:, None], axis=1)
    earlier = np.arange(outputs.shape[1]) < classes[:, None]
    return np.asarray(np.count_nonzero((outputs > own) | ((outputs == own) & earlier), axis=1))


def chunks(images: int, classes: int) -> Iterator[slice]:
    """Rows to look at one after the other."""
    rows = max(1, _CHUNK_ELEMENTS // classes)
    return (slice(start, min(images, start + rows)) for start in range(0, images, rows))
