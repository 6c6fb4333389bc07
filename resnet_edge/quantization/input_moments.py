"""What convolutions and dense layers get to see: mean and covariance of the values under their kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from resnet_edge.engines.threads import one_blas_thread
from resnet_edge.graph.execution import execute_nodes
from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D
from resnet_edge.quantization.weights import matrix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.weights import Linear

PATCH_ROWS = 2**14
"""Kernel positions that are looked at together."""

MOST_ROWS_A_BATCH = 2**16
"""Kernel positions of one batch that count; of more, an even sample does. A covariance needs no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InputMoments:
    """Of the vectors that a weight's columns are multiplied with, by group of channels.

    A group is what ``Conv2D.groups`` says; each channel of a depthwise convolution is one of its own.

    Attributes:
        mean: (groups, taps).
        covariance: (groups, taps, taps).
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


class _Sums:
    """Running sums of one layer's input vectors, and of their products."""

    def __init__(self) -> None:
        self._rows = 0
        self._origin: NDArray[np.float32] | None = None
        self._sum: NDArray[np.float64] | float = 0.0
        self._products: NDArray[np.float64] | float = 0.0

    def add(self, rows: NDArray[np.float32]) -> None:
        """Take in vectors (groups, rows, taps)."""
        if self._origin is None:
            # Sums about a point near the mean: where inputs hardly vary, squares would cancel to nothing.
            self._origin = rows.mean(axis=1, keepdims=True)
        rows = rows - self._origin
        self._rows += rows.shape[1]
        self._sum = self._sum + rows.sum(axis=1, dtype=np.float64)
        self._products = self._products + (rows.transpose(0, 2, 1) @ rows).astype(np.float64)

    def moments(self) -> InputMoments:
        """Mean and covariance of all vectors so far."""
        mean = np.asarray(self._sum) / self._rows
        products = np.asarray(self._products) / self._rows
        covariance = products - mean[:, :, None] * mean[:, None, :]
        origin = np.zeros(1) if self._origin is None else self._origin[:, 0].astype(np.float64)
        return InputMoments(mean=mean + origin, covariance=covariance)


def covariance_bytes(graph: Graph) -> int:
    """Memory that the covariances of all nodes take: tells beforehand whether they are cheap."""
    return sum(
        _groups(node.op) * len(matrix(node.op)) ** 2 * np.dtype(np.float64).itemsize
        for node in graph.nodes
        if isinstance(node.op, Conv2D | DepthwiseConv2D | Dense)
    )


def _groups(op: Linear) -> int:
    """Groups of channels that are multiplied apart from each other."""
    if isinstance(op, Dense):
        return 1
    return op.groups if isinstance(op, Conv2D) else op.weight.shape[2]


def measure(graph: Graph, batches: Iterable[NDArray[np.float32]]) -> dict[str, InputMoments]:
    """The moments of every weighted node's input over images, by node name.

    Args:
        graph: The float graph.
        batches: Model inputs (N, height, width, channels).
    """
    sums = {
        node.name: _Sums() for node in graph.nodes if isinstance(node.op, Conv2D | DepthwiseConv2D | Dense)
    }
    with one_blas_thread():
        for images in batches:
            for node, tensor in execute_nodes(graph, images):
                for consumer in graph.consumers[node.name]:
                    if isinstance(consumer.op, Conv2D | DepthwiseConv2D | Dense):
                        for rows in _rows(consumer.op, tensor):
                            sums[consumer.name].add(rows)
    return {name: total.moments() for name, total in sums.items()}


def _rows(op: Linear, x: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The vectors under the kernel, (groups, rows, taps), some at a time."""
    if isinstance(op, Dense):
        yield x[None]
        return
    (kh, kw), (sh, sw), (dh, dw), pad = op.kernel, op.strides, op.dilation, op.padding
    padded = np.pad(x, ((0, 0), (pad.top, pad.bottom), (pad.left, pad.right), (0, 0)))
    spans = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    windows = sliding_window_view(padded, spans, axis=(1, 2))[:, ::sh, ::sw, :, ::dh, ::dw]
    n, height, width = windows.shape[:3]
    positions = np.arange(0, n * height * width, max(1, n * height * width // MOST_ROWS_A_BATCH))
    for start in range(0, len(positions), PATCH_ROWS):
        chosen = np.unravel_index(positions[start : start + PATCH_ROWS], (n, height, width))
        patches = windows[chosen].reshape(len(chosen[0]), _groups(op), -1, kh, kw)
        yield patches.transpose(1, 0, 3, 4, 2).reshape(_groups(op), len(chosen[0]), -1)
