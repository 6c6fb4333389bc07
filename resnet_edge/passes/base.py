"""What a pass is, and how it reports what it does to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from resnet_edge.graph.operators import Elementwise
from resnet_edge.pass_reports import Change, Kept

if TYPE_CHECKING:
    from resnet_edge.graph import Graph, Node
    from resnet_edge.pass_reports import PassReport


class Pass(Protocol):
    """A function from graph to graph that computes the same (but for float rounding).

    The given graph is never touched; nodes that stay keep their names.
    """

    def __call__(self, graph: Graph, /) -> tuple[Graph, PassReport]:
        """The transformed graph, and what was done to it."""
        ...


class ObstacleError(Exception):
    """Why a pass cannot do to one node what it does; becomes that node's ``Kept.reason``."""


def change(
    node: Node, what: str, *, into: tuple[str, ...] = (), max_abs_error: float | None = None
) -> Change:
    """What was done to ``node``, given as it was before."""
    return Change(
        node=node.name,
        source=node.source,
        kind=type(node.op).__name__,
        what=what,
        into=into,
        max_abs_error=max_abs_error,
    )


def kept(node: Node, reason: str) -> Kept:
    """Why ``node`` was left alone."""
    return Kept(node=node.name, source=node.source, kind=type(node.op).__name__, reason=reason)


def label(node: Node) -> str:
    """A node as reasons name it: its operator or function, and its name."""
    kind = node.op.function.value if isinstance(node.op, Elementwise) else type(node.op).__name__
    return f"{kind} {node.name!r}"
