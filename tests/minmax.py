"""The simplest statistics for tests of what comes behind calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.execution import execute_nodes
from resnet_edge.quantization.statistics import Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph


def minmax(graph: Graph, images: NDArray[np.float32]) -> Statistics:
    """Smallest and largest value of every tensor, and its channels' means."""
    ranges, means = {}, {}
    for node, tensor in execute_nodes(graph, images):
        ranges[node.name] = (min(0.0, float(tensor.min())), max(0.0, float(tensor.max())))
        positions = tuple(range(tensor.ndim - 1))
        means[node.name] = tensor.mean(axis=positions, dtype=np.float64).astype(np.float32)
    return Statistics(ranges=ranges, observed=ranges, channel_means=means, images=len(images))
