"""Takes out nodes that hand on what they get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import (
    Affine,
    AveragePool2D,
    Concat,
    Elementwise,
    Function,
    MaxPool2D,
    Pad,
    Permute,
    Reshape,
    Slice,
    Upsample2D,
)
from resnet_edge.pass_reports import Change, PassReport
from resnet_edge.passes.base import change
from resnet_edge.passes.signs import nonnegative

if TYPE_CHECKING:
    from collections.abc import Container

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Shape
    from resnet_edge.graph.operators import Operator


def drop_identity(graph: Graph) -> tuple[Graph, PassReport]:
    """Remove what computes nothing, and what the output does not need.

    Removed are a Reshape to the same shape, a Pad of nothing, a Slice of everything, a Permute that keeps the
    order, an Upsample2D by 1, a Concat of one tensor, scale 1 with offset 0, a ReLU of what cannot be
    negative, a ReLU6 of a ReLU6, and a pool of single pixels. Such a pool that strides is a strided Slice.
    """
    editor = GraphEditor(graph)
    clipped = nonnegative(graph)
    changes: list[Change] = []
    for node in graph.nodes[1:]:
        picked = _as_slice(node.op, graph.shapes[node.inputs[0]])
        if _is_identity(graph, node, picked or node.op, clipped):
            editor.remove(node.name)
            changes.append(change(node, "removed"))
        elif picked is not None:
            editor.set_op(node.name, picked)
            changes.append(change(node, "became a strided Slice"))
    return editor.graph(), PassReport(name="drop_identity", changes=tuple(changes))


def _as_slice(op: Operator, shape: Shape) -> Slice | None:
    """A pool whose windows are single pixels only picks some of them."""
    if not isinstance(op, MaxPool2D | AveragePool2D) or op.size != (1, 1) or op.padding:
        return None
    height, width, channels = shape
    return Slice(begin=(0, 0, 0), end=(height, width, channels), strides=(*op.strides, 1))


def _is_identity(graph: Graph, node: Node, op: Operator, clipped: Container[str]) -> bool:
    """Whether ``op`` in the place of ``node`` hands on its input."""
    source = graph.by_name[node.inputs[0]]
    shape = graph.shapes[source.name]
    match op:
        case Reshape() | Slice() | Upsample2D():
            return op.infer([shape]) == shape
        case Pad():
            return not op.padding and op.channels == (0, 0)
        case Permute():
            return op.order == tuple(range(len(shape)))
        case Concat():
            return len(node.inputs) == 1
        case Affine():
            return bool((op.scale == 1).all() and (op.offset == 0).all())
        case Elementwise(function=Function.RELU):
            return source.name in clipped
        case Elementwise(function=Function.RELU6):
            return isinstance(source.op, Elementwise) and source.op.function is Function.RELU6
        case _:
            return False
