"""Which layers are pruned or clustered."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError, UsageError
from resnet_edge.graph.operators import Conv2D, Dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnet_edge.graph import Graph


def choose_layers(graph: Graph, patterns: Sequence[str], *, keep_ends: bool) -> tuple[str, ...]:
    """Names of the layers to work on.

    Depthwise convolutions are never among them: they have few weights, and need each.

    Args:
        graph: The graph.
        patterns: As in file names (``*``, ``?``, ``[...]``), for a node's name or its layer's path; empty for
            all layers.
        keep_ends: Whether, without patterns, the first and the last layer are left alone.

    Raises:
        UsageError: A pattern matches no such layer.
        ModelRejectedError: No layer is left.
    """
    known = [node for node in graph.nodes if isinstance(node.op, Conv2D | Dense)]
    for pattern in patterns:
        if not any(fnmatchcase(node.name, pattern) or fnmatchcase(node.source, pattern) for node in known):
            raise UsageError(
                f"the pattern {pattern!r} matches no layer",
                where="--layers",
                allowed=f"convolutions and dense layers: {', '.join(node.name for node in known[:8])}, ...",
                next_step="quote patterns for the shell",
            )
    if patterns:
        return tuple(
            node.name
            for node in known
            if any(fnmatchcase(node.name, each) or fnmatchcase(node.source, each) for each in patterns)
        )
    chosen = tuple(node.name for node in (known[1:-1] if keep_ends else known))
    if not chosen:
        raise ModelRejectedError(
            "the model has no layer to work on",
            where=graph.name,
            allowed="convolutions and dense layers"
            + (" between the first and the last" if keep_ends else ""),
            next_step="name layers with --layers",
        )
    return chosen
