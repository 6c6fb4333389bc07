"""Moves the zeros of a Pad into the padding of what takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import AveragePool2D, Conv2D, DepthwiseConv2D, MaxPool2D, Pad
from resnet_edge.pass_reports import Change, Kept, PassReport
from resnet_edge.passes.base import ObstacleError, change, kept, label
from resnet_edge.passes.signs import nonnegative

if TYPE_CHECKING:
    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Padding
    from resnet_edge.graph.operators import Operator


def absorb_padding(graph: Graph) -> tuple[Graph, PassReport]:
    """Remove every Pad whose consumers can all pad by themselves.

    Convolutions pad with zeros, so they always can. A max pool's own padding never wins, so it can where
    nothing is below zero and every window holds a real cell. An average pool does not count its own padding,
    but does count a Pad's zeros: it cannot. Two Pads in a row are one.
    """
    editor = GraphEditor(graph)
    clipped = nonnegative(graph)
    changes: list[Change] = []
    left: list[Kept] = []
    for name in graph.by_name:
        # As it stands now: an earlier Pad may have gone into this one.
        node = editor.node(name)
        if not isinstance(node.op, Pad):
            continue
        signed = node.inputs[0] not in clipped
        try:
            padded = {user.name: _padded(user, node.op, signed=signed) for user in _users(editor, node)}
        except ObstacleError as obstacle:
            left.append(kept(node, str(obstacle)))
            continue
        for user, op in padded.items():
            editor.set_op(user, op)
        editor.remove(name)
        changes.append(change(node, "absorbed", into=tuple(padded)))
    return editor.graph(), PassReport(name="absorb_padding", changes=tuple(changes), kept=tuple(left))


def _users(editor: GraphEditor, node: Node) -> list[Node]:
    if editor.is_output(node.name):
        raise ObstacleError("its result is the model's output")
    return editor.consumers(node.name)


def _padded(user: Node, pad: Pad, *, signed: bool) -> Operator:
    """The consumer's operator with the Pad's zeros added to its own.

    Args:
        user: The consumer.
        pad: The Pad.
        signed: Whether what is padded may be below zero.

    Raises:
        ObstacleError: The operator cannot pad so.
    """
    op = user.op
    if isinstance(op, Pad):
        before, after = (own + new for own, new in zip(op.channels, pad.channels, strict=True))
        return replace(op, padding=op.padding + pad.padding, channels=(before, after))
    if any(pad.channels):
        raise ObstacleError("pads channels, which only a node of its own can")
    if isinstance(op, Conv2D | DepthwiseConv2D):
        return replace(op, padding=op.padding + pad.padding)
    if isinstance(op, MaxPool2D):
        return _padded_pool(user, op, op.padding + pad.padding, signed=signed)
    if isinstance(op, AveragePool2D):
        raise ObstacleError(f"{label(user)} counts the zeros, and would not count its own padding")
    raise ObstacleError(f"feeds {label(user)}, which has no padding of its own")


def _padded_pool(user: Node, op: MaxPool2D, padding: Padding, *, signed: bool) -> MaxPool2D:
    if signed:
        raise ObstacleError(f"{label(user)} may find values below zero, among which its zeros win")
    # The last window begins inside the map only if it is longer than what is padded behind the map.
    if max(padding.top, padding.bottom) >= op.size[0] or max(padding.left, padding.right) >= op.size[1]:
        raise ObstacleError(f"{label(user)} would have windows with nothing but padding")
    return replace(op, padding=padding)
