"""What passes ask of the connections in a graph under change."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from resnet_edge.passes.base import ObstacleError, label

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnet_edge.graph import GraphEditor, Node


def feeds_only(editor: GraphEditor, name: str, consumer: str) -> bool:
    """Whether ``consumer`` is the only one that takes the tensor ``name``."""
    return not editor.is_output(name) and [node.name for node in editor.consumers(name)] == [consumer]


def producers(editor: GraphEditor, node: Node, transparent: Callable[[Node], bool]) -> list[Node]:
    """The nodes before a one-input node, nearest first, up to the first that is not ``transparent``.

    Args:
        editor: The graph under change.
        node: Where to begin; not among the result.
        transparent: Whether to look further up; only ever true of one-input nodes.
    """
    found = [editor.node(node.inputs[0])]
    while transparent(found[-1]):
        found.append(editor.node(found[-1].inputs[0]))
    return found


def require_sole_consumers(editor: GraphEditor, chain: list[Node]) -> None:
    """Check that in a chain of nodes, last first, each takes alone what the one before it makes.

    Raises:
        ObstacleError: Something else takes a tensor between them.
    """
    for node, producer in pairwise(chain):
        if editor.is_output(producer.name):
            raise ObstacleError(f"{label(producer)} is the model's output too")
        users = [user.name for user in editor.consumers(producer.name) if user.name != node.name]
        if users:
            raise ObstacleError(f"{label(producer)} also feeds {', '.join(map(repr, users))}")
