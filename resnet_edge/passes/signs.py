"""Which tensors cannot be negative."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Concat,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool2D,
    Multiply,
    Pad,
    Permute,
    Reshape,
    Slice,
    Upsample2D,
)

if TYPE_CHECKING:
    from resnet_edge.graph import Graph
    from resnet_edge.graph.operators import Operator

_POSITIVE = {Function.RELU, Function.RELU6, Function.SIGMOID, Function.SOFTMAX, Function.HARD_SIGMOID}
_SIGN_KEEPING = (
    Add,
    AveragePool2D,
    Concat,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool2D,
    Multiply,
    Pad,
    Permute,
    Reshape,
    Slice,
    Upsample2D,
)


def nonnegative(graph: Graph) -> frozenset[str]:
    """Names of the tensors that are 0 or more whatever the image holds."""
    known: set[str] = set()
    for node in graph.nodes:
        inherited = isinstance(node.op, _SIGN_KEEPING) and known.issuperset(node.inputs)
        if inherited or _clips_below_zero(node.op):
            known.add(node.name)
    return frozenset(known)


def _clips_below_zero(op: Operator) -> bool:
    if isinstance(op, Elementwise):
        return op.function in _POSITIVE
    return getattr(op, "activation", Activation.NONE) is not Activation.NONE
