"""Which images of many: the same ones every time, and every class in its share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def choose_indices(available: int, wanted: int, labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Positions of ``wanted`` images, sorted; all of them where there are no more.

    With labels every class keeps its share, spread evenly over the class; what rounding leaves over goes to
    the largest remainders, the lowest class first where they tie. Without labels they are spread over all.
    """
    if wanted >= available:
        return np.arange(available)
    if labels is None:
        return _spread(np.arange(available), wanted)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    quotas = np.array([len(group) * wanted / available for group in groups])
    counts = np.floor(quotas).astype(int)
    leftover = np.argsort(counts - quotas, kind="stable")[: wanted - counts.sum()]
    counts[leftover] += 1
    return np.sort(
        np.concatenate([_spread(group, count) for group, count in zip(groups, counts, strict=True)])
    )


def _spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of the positions, evenly spaced."""
    return positions[np.arange(count) * len(positions) // max(count, 1)]
