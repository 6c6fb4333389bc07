"""Lets a model take pixels: the normalization of its input becomes part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.graph import INPUT_NAME, GraphEditor, Node
from resnet_edge.graph.operators import Affine, BatchNorm, Conv2D, Pad
from resnet_edge.pass_reports import Change, Kept, PassReport
from resnet_edge.passes.base import ObstacleError, change, kept, label
from resnet_edge.passes.channel_affine import ChannelAffine
from resnet_edge.passes.fold_affine import fold_forward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.graph import Graph
    from resnet_edge.graph.operators import Operator


def fold_input_normalization(graph: Graph, *, preprocessing: Preprocessing) -> tuple[Graph, PassReport]:
    """Turn a graph that takes normalized channels into one that takes pixels 0 to 255 in RGB order.

    The order BGR becomes an order of the first convolution's input channels: always exact. Scale and offset
    go into its weights, unless it pads: its zeros stand for a normalized 0, and would become black pixels,
    wrong along every border. What cannot be folded stays in front as a node of its own.
    """
    editor = GraphEditor(graph)
    changes: list[Change] = []
    left: list[Kept] = []

    def attempt(node: Node, fold: Callable[[], Change]) -> None:
        try:
            changes.append(fold())
        except ObstacleError as obstacle:
            left.append(kept(node, str(obstacle)))

    scale, offset = preprocessing.affine()
    if preprocessing.bgr:
        scale, offset = scale[::-1], offset[::-1]
        order = _insert(editor, "input_order", _reversal(), preprocessing)
        attempt(order, lambda: _fold_order(editor, order))
    # Behind the image, before the order: a convolution that had to stay takes the affine up.
    if (scale != 1).any() or offset.any():
        affine = ChannelAffine(scale=scale, offset=offset).op()
        node = _insert(editor, "input_normalization", affine, preprocessing)
        attempt(node, lambda: fold_forward(editor, node, affine))
    return editor.graph(), PassReport(
        name="fold_input_normalization", changes=tuple(changes), kept=tuple(left)
    )


def _insert(editor: GraphEditor, name: str, op: Operator, preprocessing: Preprocessing) -> Node:
    """A new node between the image and everything that takes it."""
    node = Node(
        name=editor.unused_name(name),
        op=op,
        inputs=(INPUT_NAME,),
        source=f"preprocessing {preprocessing.name}",
    )
    editor.add(node)
    editor.redirect(INPUT_NAME, node.name, keep=[node.name])
    return node


def _reversal() -> Conv2D:
    weight = np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3)
    return Conv2D(weight=weight.copy(), bias=np.zeros(3, np.float32))


def _fold_order(editor: GraphEditor, node: Node) -> Change:
    users = dict(_reversed_users(editor, node.name))
    for name, op in users.items():
        editor.set_op(name, op)
    editor.remove(node.name)
    return change(node, "folded forward", into=tuple(users), max_abs_error=0.0)


def _reversed_users(editor: GraphEditor, name: str) -> Iterator[tuple[str, Operator]]:
    """What takes the tensor ``name``, changed to take its channels in reverse."""
    for user in editor.consumers(name):
        op = user.op
        match op:
            case Conv2D(groups=1):
                yield user.name, replace(op, weight=np.ascontiguousarray(op.weight[:, :, ::-1]))
            case Affine() | BatchNorm():
                constants: dict[str, Any] = {
                    role: values[::-1].copy() for role, values in op.weights().items()
                }
                yield user.name, replace(op, **constants)
                yield from _reversed_users(editor, user.name)
            case Pad(channels=(0, 0)):
                yield from _reversed_users(editor, user.name)
            case _:
                raise ObstacleError(f"feeds {label(user)}, which has no order of its inputs to change")
