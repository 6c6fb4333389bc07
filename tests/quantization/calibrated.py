"""Statistics for test graphs, without ONNX Runtime: observed by NumPy, or drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.graph.execution import execute_nodes
from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D
from resnet_edge.quantization.statistics import Statistics
from tests.graph_builder import images as seeded_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.weights import Linear


def observe(graph: Graph, images: NDArray[np.float32] | None = None) -> Statistics:
    """The extremes and channel means of every tensor on the images, or on four seeded ones."""
    images = seeded_images(graph, 4) if images is None else images
    ranges, means = {}, {}
    for node, tensor in execute_nodes(graph, images):
        ranges[node.name] = (min(float(tensor.min()), 0.0), max(float(tensor.max()), 0.0))
        means[node.name] = tensor.reshape(-1, tensor.shape[-1]).mean(axis=0)
    return Statistics(ranges=ranges, observed=ranges, channel_means=means, images=len(images))


def stated(graph: Graph, ranges: dict[str, tuple[float, float]]) -> Statistics:
    """Statistics that claim these ranges, and (-1, 1) for every other tensor."""
    known = {node.name: ranges.get(node.name, (-1.0, 1.0)) for node in graph.nodes}
    return Statistics(ranges=known, observed=known, images=1)


def weighted(graph: Graph, name: str) -> Linear:
    """A convolution or dense layer of a test graph."""
    op = graph.by_name[name].op
    assert isinstance(op, Conv2D | DepthwiseConv2D | Dense)
    return op
