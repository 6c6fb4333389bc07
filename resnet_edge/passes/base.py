"""What a pass is, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from resnet_edge.graph.operators import Elementwise

if TYPE_CHECKING:
    from resnet_edge.graph import Graph, Node


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that a pass did.

    Attributes:
        node: The node it was done to, by its name before the pass.
        source: That node's layer in the user's model.
        kind: That node's operator before the pass (``BatchNorm``, ``Pad``, ...).
        what: What was done, as a verb: ``folded backward``, ``absorbed``, ``removed``, ...
        into: The nodes that took it up, if any did.
        max_abs_error: For folds, the largest difference between the operators before and the one after, both
            in float32, on seeded normal inputs.
    """

    node: str
    source: str
    kind: str
    what: str
    into: tuple[str, ...] = ()
    max_abs_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One thing that a pass could have done and did not, and why."""

    node: str
    source: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """Everything that one pass did, and what it left alone."""

    name: str
    changes: tuple[Change, ...] = ()
    kept: tuple[Kept, ...] = ()


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
