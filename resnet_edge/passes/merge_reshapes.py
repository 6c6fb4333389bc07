"""Makes one Reshape of several, and none where a global pool can give its result the shape itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import GlobalAveragePool, GlobalMaxPool, Reshape
from resnet_edge.pass_reports import Change, PassReport
from resnet_edge.passes.base import change
from resnet_edge.passes.wiring import feeds_only

if TYPE_CHECKING:
    from resnet_edge.graph import Graph


def merge_reshapes(graph: Graph) -> tuple[Graph, PassReport]:
    """Let each Reshape read what the Reshape before it read, and drop those that then change nothing.

    A global pool that feeds nothing but a Reshape between (channels,) and (1, 1, channels) gives that shape
    itself.
    """
    editor = GraphEditor(graph)
    shapes = dict(graph.shapes)
    changes: list[Change] = []
    for node in graph.nodes:
        if not isinstance(node.op, Reshape):
            continue
        source = editor.node(editor.node(node.name).inputs[0])
        if isinstance(source.op, Reshape):
            editor.set_inputs(node.name, source.inputs)
            changes.append(change(source, "merged", into=(node.name,)))
            source = editor.node(source.inputs[0])
        if isinstance(source.op, GlobalAveragePool | GlobalMaxPool):
            other = replace(source.op, keepdims=not source.op.keepdims)
            fits = other.infer([shapes[source.inputs[0]]]) == node.op.shape
            if fits and feeds_only(editor, source.name, node.name):
                editor.set_op(source.name, other)
                shapes[source.name] = node.op.shape
        if shapes[source.name] == node.op.shape:
            editor.remove(node.name)
            changes.append(change(node, "removed"))
    return editor.graph(), PassReport(name="merge_reshapes", changes=tuple(changes))
