"""Cross-layer equalization: the same function with weights that suit one scale a tensor.

A channel between two layers may be divided by any positive factor if the layer behind multiplies it again,
also through ReLUs and pools. The factor that gives both layers' weights of that channel the same range is
sqrt(r1 * r2) / r2. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019, section 4.1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import (
    Activation,
    AveragePool2D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool2D,
)
from resnet_edge.quantization.weights import matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.quantization.weights import Linear

SWEEPS = 20
"""Balancing one pair unbalances its neighbours a little; so many rounds settle chains of any length met."""

MOST_FACTOR = 2.0**6
"""No channel is scaled further: a nearly dead one would otherwise be blown up to a range of its own."""


def equalize(graph: Graph) -> Graph:
    """The graph with channels rescaled between layers that nothing else stands between.

    It computes the same up to float rounding, but its inner tensors have other ranges: calibrate this graph.
    """
    pairs = [pair for node in graph.nodes if (pair := _pair(graph, node)) is not None]
    editor = GraphEditor(graph)
    for _ in range(SWEEPS):
        for first, second in pairs:
            _balance(editor, first, second)
    return editor.graph()


def _pair(graph: Graph, node: Node) -> tuple[str, str] | None:
    """A weighted node and the only weighted node that takes its channels, if that is how it is."""
    if not isinstance(node.op, Conv2D | DepthwiseConv2D | Dense) or node.op.activation is Activation.RELU6:
        return None
    name = node.name
    while name != graph.output and len(graph.consumers[name]) == 1:
        (consumer,) = graph.consumers[name]
        if isinstance(consumer.op, Conv2D | DepthwiseConv2D | Dense):
            return node.name, consumer.name
        if not _scales_through(consumer):
            return None
        name = consumer.name
    return None


def _scales_through(node: Node) -> bool:
    """Whether a positive factor on a channel comes out as it went in."""
    pools = (MaxPool2D, AveragePool2D, GlobalAveragePool, GlobalMaxPool)
    is_relu = isinstance(node.op, Elementwise) and node.op.function is Function.RELU
    return is_relu or isinstance(node.op, pools)


def _balance(editor: GraphEditor, first: str, second: str) -> None:
    """Give every channel between two nodes the factor that makes their weights' ranges equal."""
    before, behind = editor.node(first).op, editor.node(second).op
    # For mypy: _pair chose them so.
    if not isinstance(before, Conv2D | DepthwiseConv2D | Dense) or not isinstance(
        behind, Conv2D | DepthwiseConv2D | Dense
    ):
        raise TypeError(f"{first!r} and {second!r} have no weights")
    r1 = np.abs(matrix(before)).max(axis=0).astype(np.float64)
    r2 = np.abs(_by_input_channel(behind)).max(axis=(0, 2)).astype(np.float64)
    alive = (r1 > 0) & (r2 > 0)
    factor = np.sqrt(np.divide(r1, r2, out=np.ones_like(r1), where=alive))
    factor = np.clip(factor, 1 / MOST_FACTOR, MOST_FACTOR).astype(np.float32)
    editor.set_op(first, scale_outputs(before, 1 / factor))
    editor.set_op(second, scale_inputs(behind, factor))


def _by_input_channel(op: Linear) -> NDArray[np.float32]:
    """The weight as (taps, input channels, output channels of each)."""
    if isinstance(op, Dense):
        return op.weight[None]
    if isinstance(op, DepthwiseConv2D):
        return op.weight.reshape(-1, *op.weight.shape[2:])
    depth, out = op.weight.shape[2:]
    grouped = op.weight.reshape(-1, depth, op.groups, out // op.groups)
    return grouped.transpose(0, 2, 1, 3).reshape(len(grouped), depth * op.groups, -1)


def scale_outputs(op: Linear, factor: NDArray[np.float32]) -> Linear:
    """The operator with every output channel multiplied by its factor, (output channels,), above zero."""
    weight = (matrix(op) * factor).reshape(op.weight.shape)
    return replace(op, weight=weight, bias=op.bias * factor)


def scale_inputs(op: Linear, factor: NDArray[np.float32]) -> Linear:
    """The operator with the weights of every input channel multiplied by its factor, (input channels,)."""
    scaled = _by_input_channel(op) * factor[:, None]
    if isinstance(op, Conv2D):
        depth = op.weight.shape[2]
        scaled = scaled.reshape(len(scaled), op.groups, depth, -1).transpose(0, 2, 1, 3)
    return replace(op, weight=scaled.reshape(op.weight.shape))
