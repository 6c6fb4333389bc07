"""Writes the affines that could not be folded as an operator that every format has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from resnet_edge.graph import GraphEditor, Node
from resnet_edge.graph.operators import Affine, BatchNorm, Reshape
from resnet_edge.pass_reports import Change, PassReport
from resnet_edge.passes.base import change
from resnet_edge.passes.channel_affine import ChannelAffine

if TYPE_CHECKING:
    from resnet_edge.graph import Graph
    from resnet_edge.graph.geometry import Shape


def lower_affine(graph: Graph, *, batch_norms: bool = True) -> tuple[Graph, PassReport]:
    """Write every Affine, and every BatchNorm if told so, as a DepthwiseConv2D of one pixel of its name.

    A multiplication and an addition would be two operators, each with a tensor in between to quantize, and a
    scale for all channels together. A tensor that is no map becomes one of height 1 before and is made
    itself again behind.
    """
    editor = GraphEditor(graph)
    changes: list[Change] = []
    for node in graph.nodes:
        if isinstance(node.op, Affine) or (batch_norms and isinstance(node.op, BatchNorm)):
            editor.set_op(node.name, ChannelAffine.of(node.op).depthwise())
            shape = graph.shapes[node.name]
            if len(shape) != 3:
                _as_map(editor, node, shape)
            changes.append(change(node, "became a DepthwiseConv2D"))
    return editor.graph(), PassReport(name="lower_affine", changes=tuple(changes))


def _as_map(editor: GraphEditor, node: Node, shape: Shape) -> None:
    """Put a Reshape to (1, width, channels) before the node, and one to ``shape`` behind it."""
    before, behind = editor.unused_name(f"{node.name}/map"), editor.unused_name(f"{node.name}/vector")
    as_map = Reshape(shape=(1, math.prod(shape[:-1]), shape[-1]))
    editor.add(Node(name=before, op=as_map, inputs=node.inputs, source=node.source))
    editor.set_inputs(node.name, [before])
    editor.add(Node(name=behind, op=Reshape(shape=shape), inputs=(node.name,), source=node.source))
    editor.redirect(node.name, behind, keep=[behind])
