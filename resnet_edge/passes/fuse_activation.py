"""Moves ReLU and ReLU6 into the operator that makes their input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import (
    Activation,
    Add,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalMaxPool,
    MaxPool2D,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.pass_reports import Change, Kept, PassReport
from resnet_edge.passes.base import ObstacleError, change, kept, label
from resnet_edge.passes.wiring import producers, require_sole_consumers

if TYPE_CHECKING:
    from resnet_edge.graph import Graph, Node

_FUSED = {Function.RELU: Activation.RELU, Function.RELU6: Activation.RELU6}
_COMMUTES = (GlobalMaxPool, MaxPool2D, Pad, Reshape, Slice)
"""Operators that only pick, move or compare values, or add zeros: clipping may come before them."""


def fuse_activation(graph: Graph) -> tuple[Graph, PassReport]:
    """Let Conv2D, DepthwiseConv2D, Dense and Add apply the ReLU or ReLU6 behind them.

    Nothing else may take what they compute. Operators that only pick or move values may stand between.
    """
    editor = GraphEditor(graph)
    changes: list[Change] = []
    left: list[Kept] = []
    for node in graph.nodes:
        if not isinstance(node.op, Elementwise) or node.op.function not in _FUSED:
            continue
        try:
            # As it stands now: an activation in front of it may just have been fused away.
            producer = _fuse(editor, editor.node(node.name), _FUSED[node.op.function])
        except ObstacleError as obstacle:
            left.append(kept(node, str(obstacle)))
        else:
            changes.append(change(node, "fused", into=(producer,)))
    return editor.graph(), PassReport(name="fuse_activation", changes=tuple(changes), kept=tuple(left))


def _fuse(editor: GraphEditor, node: Node, activation: Activation) -> str:
    *between, producer = producers(editor, node, lambda before: isinstance(before.op, _COMMUTES))
    op = producer.op
    if not isinstance(op, Conv2D | DepthwiseConv2D | Dense | Add):
        raise ObstacleError(f"follows {label(producer)}")
    if op.activation is not Activation.NONE:
        raise ObstacleError(f"{label(producer)} applies {op.activation.value} already")
    require_sole_consumers(editor, [node, *between, producer])
    editor.set_op(producer.name, replace(op, activation=activation))
    editor.remove(node.name)
    return producer.name
