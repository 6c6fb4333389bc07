"""Exceptions from a recipe for single layers: ``PATTERN=RULE``."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from resnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnet_edge.graph import Graph, Node

Rule: TypeAlias = Literal["float", "int8-per-tensor"]
"""``float``: the layer stays float32. ``int8-per-tensor``: one scale for all of its weights."""

_OPTION = "--override"


@dataclass(frozen=True, kw_only=True)
class Override:
    """One exception.

    Attributes:
        pattern: As in file names (``*``, ``?``, ``[...]``), for a node's name or its layer's path.
        rule: What holds for the nodes that it matches.
    """

    pattern: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.pattern}={self.rule}"

    @classmethod
    def parse(cls, text: str) -> Override:
        """The exception that ``PATTERN=RULE`` writes.

        Raises:
            UsageError: It has another form, or an unknown rule.
        """
        pattern, _, rule = text.rpartition("=")
        if not pattern or rule not in get_args(Rule):
            raise UsageError(
                f"{text!r} is no override",
                where=_OPTION,
                allowed=" | ".join(f"PATTERN={name}" for name in get_args(Rule)),
            )
        return cls(pattern=pattern, rule=cast("Rule", rule))

    def matches(self, node: Node) -> bool:
        """Whether it is about this node."""
        return fnmatchcase(node.name, self.pattern) or fnmatchcase(node.source, self.pattern)


def resolve(overrides: Sequence[str], graph: Graph) -> dict[str, Override]:
    """Which exception holds for which node; of several the last.

    Raises:
        UsageError: One is malformed, or matches no node.
    """
    found: dict[str, Override] = {}
    for override in map(Override.parse, overrides):
        matched = [node.name for node in graph.nodes if override.matches(node)]
        if not matched:
            raise UsageError(
                f"the override {str(override)!r} matches no layer",
                where=_OPTION,
                allowed=f"layers such as {', '.join(node.name for node in graph.nodes[1:9])}",
                next_step="quote patterns for the shell",
            )
        found.update(dict.fromkeys(matched, override))
    return found
