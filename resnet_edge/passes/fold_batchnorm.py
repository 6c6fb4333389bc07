"""Folds batch norms, and other per-channel affines, into the linear operators around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import Affine, BatchNorm
from resnet_edge.pass_reports import Change, Kept, PassReport
from resnet_edge.passes.base import ObstacleError, kept
from resnet_edge.passes.fold_affine import fold_backward, fold_forward

if TYPE_CHECKING:
    from resnet_edge.graph import Graph, Node
    from resnet_edge.passes.channel_affine import PerChannel


def fold_batchnorm(graph: Graph) -> tuple[Graph, PassReport]:
    """Fold every BatchNorm and Affine backward, else forward, else leave it and say why.

    Backward comes first: it needs no condition on padding. An affine that only another one follows is
    multiplied into that one, which then stands for both.
    """
    editor = GraphEditor(graph)
    changes: list[Change] = []
    left: list[Kept] = []
    for name in graph.by_name:
        # As it stands now: an earlier one may have been folded into it.
        node = editor.node(name)
        if not isinstance(node.op, BatchNorm | Affine):
            continue
        try:
            changes.append(_fold(editor, graph, node, node.op))
        except ObstacleError as obstacle:
            left.append(kept(node, str(obstacle)))
    return editor.graph(), PassReport(name="fold_batchnorm", changes=tuple(changes), kept=tuple(left))


def _fold(editor: GraphEditor, graph: Graph, node: Node, op: PerChannel) -> Change:
    try:
        return fold_backward(editor, graph.shapes, node, op)
    except ObstacleError as obstacle:
        before = obstacle
    try:
        return fold_forward(editor, node, op)
    except ObstacleError as behind:
        raise ObstacleError(f"{before}; {behind}") from None
