"""Calibration: images through the float graph, and what every tensor held on the way.

The graph runs in ONNX Runtime, from the file that our own converter writes, with every node's tensor as an
output: on a CPU that is several times faster than any execution in NumPy, and what is observed is rounded in
the last bit only.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import DataRejectedError
from resnet_edge.graph import INPUT_NAME
from resnet_edge.quantization.observed_session import ObservedSession
from resnet_edge.quantization.observers import DEFAULT_OBSERVER, Batch, MinMax, find_observer
from resnet_edge.quantization.rectified_sums import rectified_addends
from resnet_edge.quantization.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor, Future

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.observed_session import StoredTensor
    from resnet_edge.quantization.observers import Observer, Reduced
    from resnet_edge.quantization.range_search import Limits

Tensor: TypeAlias = NDArray[np.float32]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

TENSOR_BYTES = 32 * 2**20
"""Memory for all tensors of the images that run at a time: so many images are one step, but at least one.
More is slower: the tensors leave the processor's cache before they are observed."""

BYTES_UNDER_WAY = 160 * 2**20
"""Memory for the tensors of all steps that run side by side: so many are under way, but at least two."""


def calibrate(
    graph: Graph,
    batches: Iterable[Tensor],
    *,
    observer: str = DEFAULT_OBSERVER,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Run the graph over images and observe every node's output.

    Args:
        graph: Folded, in the form that converters take.
        batches: Model inputs (N, height, width, channels), batches of any size.
        observer: Name of the observer that chooses the ranges.
        progress: Told the number of images done, after every step.

    Raises:
        UsageError: There is no such observer.
        DataRejectedError: There are no images, or a tensor gets infinite or undefined (names the node).
    """
    make = find_observer(observer)
    watches = {node.name: _Watch(node.name, graph.shapes[node.name][-1], make()) for node in graph.nodes}
    step = images_a_step(graph)
    # A step's operators on one core each, and steps side by side, leave no core waiting for another.
    side_by_side = min(usable_cores(), max(2, BYTES_UNDER_WAY // (step * _bytes_an_image(graph))))
    session = ObservedSession(graph, usable_cores() // side_by_side)

    addends = rectified_addends(graph)

    def look(inputs: Tensor) -> dict[str, _Glimpse]:
        tensors = session.run(inputs)
        return {
            name: watches[name].look(tensor, tensors[addends[name]] if name in addends else None)
            for name, tensor in tensors.items()
        }

    images = 0
    with ThreadPoolExecutor(side_by_side) as pool:
        # One more step waits its turn: a thread that is done finds work.
        for glimpses in _in_order(pool, look, _steps(batches, step), side_by_side + 1):
            for name, glimpse in glimpses.items():
                watches[name].add(glimpse)
            images = watches[INPUT_NAME].images
            if progress is not None:
                progress(images)
        _check_any(images)
        ranges = dict(zip(watches, pool.map(_Watch.limits, watches.values()), strict=True))
    return Statistics(
        ranges=ranges,
        observed={name: watch.extremes.limits() for name, watch in watches.items()},
        channel_means={name: watch.channel_means() for name, watch in watches.items()},
        images=images,
    )


def images_a_step(graph: Graph) -> int:
    """Images that a float graph runs on together without their tensors taking much memory."""
    return max(1, TENSOR_BYTES // _bytes_an_image(graph))


def _bytes_an_image(graph: Graph) -> int:
    return 4 * sum(math.prod(shape) for shape in graph.shapes.values())


def _steps(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The batches cut into pieces of at most ``size`` images."""
    for batch in batches:
        for start in range(0, len(batch), size):
            yield np.ascontiguousarray(batch[start : start + size], np.float32)


def _in_order(
    pool: Executor, work: Callable[[ItemT], ResultT], items: Iterable[ItemT], most: int
) -> Iterator[ResultT]:
    """The results in the items' order; at most ``most`` items are under way, which bounds the memory."""
    waiting: deque[Future[ResultT]] = deque()
    for item in items:
        if len(waiting) == most:
            yield waiting.popleft().result()
        waiting.append(pool.submit(work, item))
    while waiting:
        yield waiting.popleft().result()


def _check_any(images: int) -> None:
    if images == 0:
        raise DataRejectedError(
            "there are no calibration images", next_step="give at least one image; 100 to 500 are usual"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Glimpse:
    """What is left of the tensor of some images.

    Attributes:
        low: Smallest value of each image, (N,).
        high: Largest value of each image, (N,).
        sums: Of the means of every channel, (channels,).
        reduced: What the observer made of it.
    """

    low: Tensor
    high: Tensor
    sums: NDArray[np.float64]
    reduced: Reduced


class _Watch:
    """Everything that is kept about one tensor.

    Attributes:
        extremes: Its smallest and largest value.
        images: How many were seen.
    """

    def __init__(self, name: str, channels: int, observer: Observer) -> None:
        self.extremes = MinMax()
        self.images = 0
        self._name, self._observer = name, observer
        self._sums = np.zeros(channels)

    def look(self, tensor: StoredTensor, other: StoredTensor | None) -> _Glimpse:
        """Reduce the tensor of some images; several threads may do so at a time.

        Args:
            tensor: What to look at.
            other: What is added to it in front of a ReLU, where the tensor serves for nothing else.
        """
        whole = Batch(values=tensor.values)
        others = tuple(axis for axis in range(1, tensor.values.ndim) if axis != tensor.channel_axis)
        return _Glimpse(
            low=whole.low,
            high=whole.high,
            # NumPy adds up single images in float32, pairwise; over the images the sums are float64.
            sums=tensor.values.mean(axis=others).sum(axis=0, dtype=np.float64),
            reduced=self._observer.reduce(
                whole if other is None else Batch(values=tensor.values, other=other.values)
            ),
        )

    def add(self, glimpse: _Glimpse) -> None:
        """Take in the next images.

        Raises:
            DataRejectedError: The tensor has an infinite or undefined element.
        """
        finite = np.isfinite(glimpse.low) & np.isfinite(glimpse.high)
        if not finite.all():
            self._reject(self.images + int(np.argmin(finite)))
        self.extremes.add(np.array([glimpse.low.min(), glimpse.high.max()]))
        self._observer.add(glimpse.reduced)
        self._sums += glimpse.sums
        self.images += len(glimpse.low)

    def limits(self) -> Limits:
        """The observer's range, no wider than what was seen, and with zero in it."""
        low, high = self._observer.limits()
        least, most = self.extremes.limits()
        return min(max(low, least), 0.0), max(min(high, most), 0.0)

    def channel_means(self) -> Tensor:
        """The mean of every channel, (channels,)."""
        return (self._sums / self.images).astype(np.float32)

    def _reject(self, image: int) -> None:
        raise DataRejectedError(
            "a tensor is not finite during calibration",
            where=f"the output of {self._name!r}, calibration image {image}",
            found="NaN or infinity",
            allowed="finite numbers in every tensor",
            next_step="check that image and the model's weights; the float model itself fails on it",
        )
