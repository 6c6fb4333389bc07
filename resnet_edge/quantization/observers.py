"""Observers: from a tensor's values over all images to the range that its integers should cover.

An observer is a *reducer*, which makes something small of the tensor of one batch, in any thread, and an
*aggregator*, which joins what the reducer made of all batches, in their order, and says the range. So memory
does not depend on the number of images, nor the result on how they were batched or on the threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.errors import UsageError
from resnet_edge.quantization.histogram import Histogram, count, sampled
from resnet_edge.quantization.range_search import least_divergence, least_error, percentile
from resnet_edge.quantization.rectified_sums import effective

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from resnet_edge.quantization.histogram import Bins
    from resnet_edge.quantization.range_search import Limits

DEFAULT_OBSERVER = "mse"
"""The one that measured best over the trained models: agreement with float and SQNR of the logits."""

MOMENTUM = 0.9
"""Weight of what the moving average holds already, one group of images later."""

GROUP = 16
"""Images whose common extremes are one step of the moving average, however they were batched."""

PERCENTILE = 0.9999
"""Share of the values that the percentile observer keeps."""


Reduced: TypeAlias = NDArray[Any]
"""What a reducer makes of a batch: an array of its own choice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A tensor of some images; what observers ask for is worked out once, and not before.

    Attributes:
        values: float32 (N, ...), finite.
        other: What is added to it in front of a ReLU, if it serves for nothing else: its effective values
            (see :mod:`.rectified_sums`) are then observed in its place.
    """

    values: NDArray[np.float32]
    other: NDArray[np.float32] | None = None

    @cached_property
    def low(self) -> NDArray[np.float32]:
        """Smallest value of each image, (N,)."""
        return np.asarray(self._effective.min(axis=tuple(range(1, self.values.ndim))))

    @cached_property
    def high(self) -> NDArray[np.float32]:
        """Largest value of each image, (N,)."""
        return np.asarray(self._effective.max(axis=tuple(range(1, self.values.ndim))))

    @cached_property
    def sample(self) -> NDArray[np.float32]:
        """The elements that histograms count, one after the other."""
        chosen = sampled(self.values)
        return chosen if self.other is None else effective(chosen, sampled(self.other))

    @cached_property
    def _effective(self) -> NDArray[np.float32]:
        return self.values if self.other is None else effective(self.values, self.other)


class Observer(Protocol):
    """Watches one tensor."""

    def reduce(self, batch: Batch) -> Reduced:
        """What there is to know about the tensor of some images; changes nothing."""
        ...

    def add(self, reduced: Reduced) -> None:
        """Take in what :meth:`reduce` made of the next images."""
        ...

    def limits(self) -> Limits:
        """(low, high) worth representing; zero may lie outside."""
        ...


class MinMax:
    """Extremes of every image, joined by their extremes: nothing is ever clipped."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf

    def reduce(self, batch: Batch) -> Reduced:
        """The smallest and the largest value."""
        return np.array([batch.low.min(), batch.high.max()])

    def add(self, reduced: Reduced) -> None:
        """Widen the range to what is in the batch."""
        low, high = reduced.tolist()
        self._low, self._high = min(self._low, low), max(self._high, high)

    def limits(self) -> Limits:
        """The smallest and the largest value."""
        return self._low, self._high


class MovingAverage:
    """Extremes of every group of images, joined by an exponential moving average in the images' order.

    As the ranges of quantization-aware training are found (Jacob et al., "Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference", 2018). The first groups count as their plain
    mean until there are enough for the average.
    """

    def __init__(self) -> None:
        self._mean = np.zeros(2)
        self._groups = 0
        self._open: list[tuple[float, float]] = []

    def reduce(self, batch: Batch) -> Reduced:
        """The extremes of every image, (N, 2)."""
        return np.stack([batch.low, batch.high], axis=1)

    def add(self, reduced: Reduced) -> None:
        """Move towards the extremes of each group that is complete."""
        for low, high in reduced.tolist():
            self._open.append((low, high))
            if len(self._open) == GROUP:
                self._mean = self._joined()
                self._groups += 1
                self._open.clear()

    def limits(self) -> Limits:
        """The averages, with the last group, complete or not."""
        low, high = self._joined() if self._open else self._mean
        return float(low), float(high)

    def _joined(self) -> NDArray[np.float64]:
        lows, highs = zip(*self._open, strict=True)
        share = max(1 - MOMENTUM, 1 / (self._groups + 1))
        return self._mean + (np.array([min(lows), max(highs)]) - self._mean) * share


class Distribution:
    """Histograms, joined by their sum; ``search`` finds the range that the whole distribution calls for."""

    def __init__(self, search: Callable[[Bins], Limits]) -> None:
        self._histogram, self._search = Histogram(), search

    def reduce(self, batch: Batch) -> Reduced:
        """Count the batch's values."""
        return count(batch.sample)

    def add(self, reduced: Reduced) -> None:
        """Add up the counts."""
        self._histogram.add(reduced)

    def limits(self) -> Limits:
        """What the search finds."""
        return self._search(self._histogram.bins())


OBSERVERS: Mapping[str, Callable[[], Observer]] = {
    "minmax": MinMax,
    "moving-average": MovingAverage,
    "percentile": partial(Distribution, partial(percentile, share=PERCENTILE)),
    "mse": partial(Distribution, least_error),
    "entropy": partial(Distribution, least_divergence),
}
"""By the names of ``--observer``; each call makes an observer for one tensor."""


def find_observer(name: str) -> Callable[[], Observer]:
    """The observer of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in OBSERVERS:
        raise UsageError(
            f"unknown observer {name!r}",
            where="--observer",
            allowed=", ".join(OBSERVERS),
            next_step="pick one",
        )
    return OBSERVERS[name]
