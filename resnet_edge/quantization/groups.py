"""Which nodes are computed in integers, and which tensors must share one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.operators import (
    Affine,
    AveragePool2D,
    BatchNorm,
    Concat,
    Elementwise,
    Function,
    GlobalMaxPool,
    Input,
    MaxPool2D,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.quantization.disjoint_sets import DisjointSets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.operators import Operator

RELUS = (Function.RELU, Function.RELU6)
FIXED = (Function.SIGMOID, Function.SOFTMAX)
"""Functions whose output lies between 0 and 1, with a scale that the formats prescribe."""

_MOST_LISTED = 5

_MOVERS = (MaxPool2D, AveragePool2D, GlobalMaxPool, Pad, Slice, Reshape, Concat)


def keeps_scale(op: Operator) -> bool:
    """Whether an operator's output has its inputs' scale.

    Data movers do, and pools. So does a ReLU that no producer could take up: its clamp is then exact in
    integers, and XNNPACK accepts no other.
    """
    return isinstance(op, _MOVERS) or (isinstance(op, Elementwise) and op.function in RELUS)


def is_fixed(op: Operator) -> bool:
    """Whether an operator's output scale is prescribed."""
    return isinstance(op, Elementwise) and op.function in FIXED


def check_operators(graph: Graph, kept_float: Iterable[str]) -> None:
    """Accept a graph whose operators all have an integer form, but for those kept float.

    Raises:
        ModelRejectedError: Others occur; names them.
    """
    kept = set(kept_float)
    refused = [
        node
        for node in graph.nodes
        if node.name not in kept and (node.op.tier > 1 or isinstance(node.op, BatchNorm | Affine))
    ]
    if refused:
        raise ModelRejectedError(
            f"{len(refused)} operators of the model have no integer form"
            if len(refused) > 1
            else "an operator of the model has no integer form",
            where=_listing([f"{_kind(node)} {node.source or node.name!r}" for node in refused], ", "),
            allowed="convolutions, dense layers, ReLU, ReLU6, sigmoid, softmax, additions, products, "
            "concatenations, pools, paddings, slices, reshapes",
            next_step="use --recipe fp16, or keep them in float: "
            + _listing([f"--override '{node.name}=float'" for node in refused], " "),
        )


def _kind(node: Node) -> str:
    return node.op.function.value if isinstance(node.op, Elementwise) else type(node.op).__name__


def _listing(texts: list[str], separator: str) -> str:
    """The first few of them."""
    return separator.join(texts[:_MOST_LISTED]) + (" ..." if len(texts) > _MOST_LISTED else "")


def integer_nodes(graph: Graph, kept_float: Mapping[str, str]) -> tuple[frozenset[str], dict[str, str]]:
    """The nodes computed in integers, and all others with the reason.

    A node that takes a tensor kept float is computed in float too; only its own output is quantized again.
    """
    reasons = dict(kept_float)
    for node in graph.nodes:
        source = next((name for name in node.inputs if name in kept_float), None)
        if source is not None:
            reasons.setdefault(node.name, f"takes {source!r}, which stays float")
    integer = frozenset(
        node.name for node in graph.nodes if node.name not in reasons and not isinstance(node.op, Input)
    )
    return integer, reasons


def shared_scales(graph: Graph, integer: Iterable[str]) -> dict[str, str]:
    """For every tensor the representative of its group: tensors of one group have one scale.

    The representative is the group's first tensor in graph order.
    """
    names = [node.name for node in graph.nodes]
    order = {name: index for index, name in enumerate(names)}
    sets = DisjointSets(len(names))
    for name in integer:
        node = graph.by_name[name]
        if keeps_scale(node.op):
            for source in node.inputs:
                sets.join(order[name], order[source])
    return {name: names[sets.find(index)] for name, index in order.items()}
