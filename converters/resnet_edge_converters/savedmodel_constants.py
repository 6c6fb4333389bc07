"""The variables of a SavedModel: the one place where a node's constants become TensorFlow's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from resnet_edge.tensorflow_import import tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.graph import Graph, Node

Tree: TypeAlias = dict[str, Any]
"""Variables and further trees by name."""


@dataclass(frozen=True, kw_only=True)
class NodeConstants:
    """What an operator reads when the function is traced.

    Attributes:
        node: The graph node.
        variables: Its variables by role.
    """

    node: Node
    variables: Mapping[str, tf.Variable]

    def tensor(self, role: str) -> tf.Tensor:
        """The constant of that role, as the operator computes with it."""
        return self.variables[role].read_value()


def scope(node: str) -> str:
    """A node's name as TensorFlow's operators can carry it: none of these characters at either end."""
    return node.strip("_-/") or "node"


def make_variables(graph: Graph) -> dict[str, NodeConstants]:
    """Every node's constants by the node's name."""
    return {
        node.name: NodeConstants(
            node=node,
            variables={
                role: tf.Variable(array, trainable=False, name=f"{scope(node.name)}/{role}")
                for role, array in node.op.weights().items()
            },
        )
        for node in graph.nodes
    }


def attach(module: tf.Module, constants: Mapping[str, NodeConstants]) -> None:
    """Make the variables the module's own, so that the checkpoint names them as the graph does.

    A checkpoint names a variable by the attributes and keys that lead to it, and appends a suffix: the weight
    of the node ``stage1/conv`` becomes ``stage1/conv/weight/.ATTRIBUTES/VARIABLE_VALUE``. It writes every dot
    of a name twice. Where a name is taken, by ``tf.Module`` itself or by a role of a node above
    (``conv/weight`` beside ``conv``), an underscore is appended.
    """
    root: Tree = {}
    for name, node in constants.items():
        if node.variables:
            tree = root
            for part in name.split("/"):
                tree = _subtree(tree, part)
            for role, variable in node.variables.items():
                tree[_unused(tree, role)] = variable
    for name, subtree in root.items():
        attribute = name
        while hasattr(module, attribute):
            attribute += "_"
        setattr(module, attribute, subtree)


def _subtree(tree: Tree, name: str) -> Tree:
    """The tree of that name inside ``tree``, made where there is none."""
    while not isinstance(tree.setdefault(name, {}), dict):
        name += "_"
    subtree: Tree = tree[name]
    return subtree


def _unused(tree: Tree, name: str) -> str:
    while name in tree:
        name += "_"
    return name
