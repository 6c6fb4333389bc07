"""Turns a pool over the whole map into a global one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import AveragePool2D, GlobalAveragePool, GlobalMaxPool, MaxPool2D
from resnet_edge.pass_reports import PassReport
from resnet_edge.passes.base import change

if TYPE_CHECKING:
    from resnet_edge.graph import Graph, Node


def global_pooling(graph: Graph) -> tuple[Graph, PassReport]:
    """Write every pool whose one window holds all of the map as a global pool that keeps the dimensions.

    Padding does not matter: it is neither counted nor can it win. A global mean may have an output scale of
    its own in integer formats, and has a fast kernel in every runtime; an average pool has neither.
    """
    editor = GraphEditor(graph)
    changes = []
    for node in graph.nodes:
        if isinstance(node.op, AveragePool2D) and _covers_map(graph, node, node.op):
            editor.set_op(node.name, GlobalAveragePool(keepdims=True))
            changes.append(change(node, "became a GlobalAveragePool"))
        elif isinstance(node.op, MaxPool2D) and _covers_map(graph, node, node.op):
            editor.set_op(node.name, GlobalMaxPool(keepdims=True))
            changes.append(change(node, "became a GlobalMaxPool"))
    return editor.graph(), PassReport(name="global_pooling", changes=tuple(changes))


def _covers_map(graph: Graph, node: Node, op: AveragePool2D | MaxPool2D) -> bool:
    height, width = graph.shapes[node.inputs[0]][:2]
    covered = op.size[0] >= height + op.padding.top and op.size[1] >= width + op.padding.left
    return covered and graph.shapes[node.name][:2] == (1, 1)
