"""Calibration: images through the float graph, and what every tensor held on the way.

The graph runs in ONNX Runtime, from the file that our own converter writes, with every node's tensor as an
output: on a CPU that is several times faster than any execution in NumPy, and what is observed is rounded in
the last bit only.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import DataRejectedError
from resnet_edge.quantization.observed_session import ObservedSession
from resnet_edge.quantization.observers import DEFAULT_OBSERVER, Batch, MinMax, find_observer
from resnet_edge.quantization.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.observed_session import StoredTensor
    from resnet_edge.quantization.observers import Observer
    from resnet_edge.quantization.range_search import Limits

Tensor: TypeAlias = NDArray[np.float32]

TENSOR_BYTES = 32 * 2**20
"""Memory for all tensors of the images that run at a time: so many images are one step, but at least one.
More is slower: the tensors leave the processor's cache before they are observed."""


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
    threads = usable_cores()
    session = ObservedSession(graph, threads)
    images = 0
    with ThreadPoolExecutor(threads) as pool:
        for inputs in _steps(batches, _images_a_step(graph)):
            tensors = session.run(inputs)
            # Drained, so that an error in a thread is raised here.
            list(pool.map(lambda name: watches[name].add(tensors[name]), tensors))  # noqa: B023
            images += len(inputs)
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


def _images_a_step(graph: Graph) -> int:
    floats = sum(math.prod(shape) for shape in graph.shapes.values())
    return max(1, TENSOR_BYTES // (4 * floats))


def _steps(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The batches cut into pieces of at most ``size`` images."""
    for batch in batches:
        for start in range(0, len(batch), size):
            yield np.ascontiguousarray(batch[start : start + size], np.float32)


def _check_any(images: int) -> None:
    if images == 0:
        raise DataRejectedError(
            "there are no calibration images", next_step="give at least one image; 100 to 500 are usual"
        )


class _Watch:
    """Everything that is kept about one tensor.

    Attributes:
        extremes: Its smallest and largest value.
    """

    def __init__(self, name: str, channels: int, observer: Observer) -> None:
        self.extremes = MinMax()
        self._name, self._observer = name, observer
        self._sums = np.zeros(channels)
        self._images = 0

    def add(self, tensor: StoredTensor) -> None:
        """Take in the tensor of the next images.

        Raises:
            DataRejectedError: It has an infinite or undefined element.
        """
        values = tensor.values
        axes = tuple(range(1, values.ndim))
        batch = Batch(values=values, low=values.min(axis=axes), high=values.max(axis=axes))
        finite = np.isfinite(batch.low) & np.isfinite(batch.high)
        if not finite.all():
            self._reject(self._images + int(np.argmin(finite)))
        self.extremes.add(batch)
        self._observer.add(batch)
        others = tuple(axis for axis in axes if axis != tensor.channel_axis)
        # NumPy adds up single images in float32, pairwise; over the images the sums are float64.
        self._sums += values.mean(axis=others).sum(axis=0, dtype=np.float64)
        self._images += len(values)

    def limits(self) -> Limits:
        """The observer's range, no wider than what was seen, and with zero in it."""
        low, high = self._observer.limits()
        least, most = self.extremes.limits()
        return min(max(low, least), 0.0), max(min(high, most), 0.0)

    def channel_means(self) -> Tensor:
        """The mean of every channel, (channels,)."""
        return (self._sums / self._images).astype(np.float32)

    def _reject(self, image: int) -> None:
        raise DataRejectedError(
            "a tensor is not finite during calibration",
            where=f"the output of {self._name!r}, calibration image {image}",
            found="NaN or infinity",
            allowed="finite numbers in every tensor",
            next_step="check that image and the model's weights; the float model itself fails on it",
        )
