"""From the graph's NHWC to ONNX's NCHW: how each tensor is stored, and where that costs a Transpose.

A feature map (height, width, channels) is stored as (channels, height, width); all other tensors keep their
shape. Flattening a stored map therefore gives its elements in channel-first order. Where all that follows
until the next Dense treats every element alike, the vector may stay in that order if Dense's weights are
reordered; elsewhere the map is transposed before it is flattened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_edge.graph.operators import BatchNorm, Dense, Elementwise, LeakyRelu, PRelu, Reshape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Shape

_ELEMENT_BY_ELEMENT = (BatchNorm, Elementwise, LeakyRelu, PRelu)
"""Operators that give the same result in any order of a vector's elements (softmax among them), or do once
their per-channel constants are reordered too."""


def stored(shape: Shape) -> Shape:
    """The shape in which a tensor of the graph's ``shape`` is stored."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape


def same_order(shape: Shape) -> bool:
    """Whether a stored tensor has its elements in the graph's order."""
    return len(shape) != 3 or shape[2] == 1 or shape[:2] == (1, 1)


def reshapes_as_stored(source: Shape, target: Shape) -> bool:
    """Whether reshaping the stored tensor does what reshaping the graph's tensor does."""
    if same_order(source) and same_order(target):
        return True
    return len(source) == len(target) == 3 and source[2] == target[2]


def channel_first_vectors(graph: Graph) -> Mapping[str, Shape]:
    """The vectors that stay in channel-first order, each with the shape of the map it was."""
    vectors: dict[str, Shape] = {}
    for node in graph.nodes:
        if isinstance(node.op, Reshape) and len(node.op.shape) == 1:
            shape = graph.shapes[node.inputs[0]]
            if not same_order(shape):
                vectors.update(dict.fromkeys(_until_dense(graph, node), shape))
    return vectors


def _until_dense(graph: Graph, flatten: Node) -> list[str]:
    """The vectors from ``flatten`` to the Dense nodes that end them all; empty where something else does."""
    region = [flatten.name]
    for name in region:  # grows while it is walked
        if name == graph.output:
            return []
        for consumer in graph.consumers[name]:
            if isinstance(consumer.op, _ELEMENT_BY_ELEMENT):
                region.append(consumer.name)
            elif not isinstance(consumer.op, Dense):
                return []
    return region


def channel_first(constant: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """A constant whose rows belong to a flattened map of ``shape``, its rows in channel-first order."""
    rows = constant.reshape(*shape, -1)
    return rows.transpose(2, 0, 1, 3).reshape(constant.shape)


def channel_last(constant: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """The inverse of :func:`channel_first`."""
    height, width, channels = shape
    rows = constant.reshape(channels, height, width, -1)
    return rows.transpose(1, 2, 0, 3).reshape(constant.shape)
