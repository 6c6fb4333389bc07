"""The variables of a SavedModel: the one place where a graph's constants and scales become TensorFlow's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from resnet_edge.tensorflow_import import tf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph import Node
    from resnet_edge.quantization.spec import ConstantQuant, Quantized

SCALE = "scale"
"""The role of a weight's scales, float32 (channels,) or (1,)."""
ACTIVATION = "activation"
"""The role of scale and zero point of a node's output, float32 (2,): one variable, because the time that
TensorFlow takes to write a SavedModel is in proportion to their number."""

raw = tf.raw_ops

Tree: TypeAlias = dict[str, Any]
"""Leaves and further trees by name."""


@dataclass(frozen=True, kw_only=True)
class NodeVariables:
    """A node's variables.

    Attributes:
        node: The graph node.
        variables: By role.
        quants: How a constant is stored, by its role in the graph; one that is missing here is float32.
    """

    node: Node
    variables: Mapping[str, tf.Variable]
    quants: Mapping[str, ConstantQuant]

    def read(self, input_scale: tf.Tensor | None) -> NodeConstants:
        """The constants that they stand for, in the function that is being traced.

        Args:
            input_scale: Of the node's first input; None where that is not quantized.
        """
        stored = {role: variable.value() for role, variable in self.variables.items() if role != ACTIVATION}
        tensors = {}
        for role in self.node.op.weights():
            quant = self.quants.get(role)
            if quant is None:
                tensors[role] = stored[role]
                continue
            tensors[role] = raw.Cast(x=stored[stored_role(role, quant)], DstT=tf.float32)
            if quant.dtype != "float16":
                # A bias counts in steps of the products that it is added to.
                scale = stored[SCALE] if quant.dtype == "int8" else raw.Mul(x=input_scale, y=stored[SCALE])
                tensors[role] = raw.Mul(x=tensors[role], y=_along_channels(scale, quant, tensors[role].shape))
        return NodeConstants(node=self.node, tensors=tensors)


@dataclass(frozen=True, kw_only=True)
class NodeConstants:
    """What an operator computes with.

    Attributes:
        node: The graph node.
        tensors: Its constants in float32, by their roles in the graph.
    """

    node: Node
    tensors: Mapping[str, tf.Tensor]


def _along_channels(scale: tf.Tensor, quant: ConstantQuant, shape: tf.TensorShape) -> tf.Tensor:
    """Scales in a shape that broadcasts to the constant's."""
    # A depthwise weight has its output channels in its last two dimensions, all others in the last.
    depthwise = quant.axis is not None and quant.axis < shape.rank - 1
    return raw.Reshape(tensor=scale, shape=shape[quant.axis :]) if depthwise else scale


def scope(node: str) -> str:
    """A node's name as TensorFlow's operators can carry it: none of these characters at either end."""
    return node.strip("_-/") or "node"


def stored_role(role: str, quant: ConstantQuant) -> str:
    """The role of a constant as it is stored: with its type."""
    return f"{role}_{quant.dtype}"


def stored_arrays(quantized: Quantized) -> dict[str, dict[str, NDArray[np.generic]]]:
    """What a checkpoint holds of a graph: arrays by role by node name.

    A float32 constant has its role in the graph (``weight``); any other one its type behind it
    (``weight_int8``, ``bias_int32``, ``bias_int64``, ``weight_float16``). ``scale`` are the scales of
    ``weight_int8``; a bias has none of its own, it counts in steps of input scale times weight scale. A node
    whose output is quantized has ``activation``: scale and zero point, both float32.
    """
    return {node.name: _stored(quantized, node) for node in quantized.graph.nodes}


def _stored(quantized: Quantized, node: Node) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {}
    for role, array in node.op.weights().items():
        name = f"{node.name}/{role}"
        quant = quantized.spec.constants.get(name)
        if quant is None:
            arrays[role] = array
            continue
        arrays[stored_role(role, quant)] = quantized.constants[name]
        if quant.dtype == "int8":
            arrays[SCALE] = np.array(quant.scales, np.float32)
    tensor = quantized.spec.tensors.get(node.name)
    if tensor is not None:
        arrays[ACTIVATION] = np.array([tensor.scale, tensor.zero_point], np.float32)
    return arrays


def make_variables(quantized: Quantized) -> dict[str, NodeVariables]:
    """Every node's variables by the node's name.

    Variables and not constants: TensorFlow's graph optimizer would multiply constant integers by their scales
    once and for all, and keep float32 weights.
    """
    variables: dict[str, NodeVariables] = {}
    arrays = stored_arrays(quantized)
    for node in quantized.graph.nodes:
        roles = {role: quantized.spec.constants.get(f"{node.name}/{role}") for role in node.op.weights()}
        variables[node.name] = NodeVariables(
            node=node,
            variables={
                role: tf.Variable(array, trainable=False, name=f"{scope(node.name)}/{role}")
                for role, array in arrays[node.name].items()
            },
            quants={role: quant for role, quant in roles.items() if quant is not None},
        )
    return variables


def attach(module: tf.Module, variables: Mapping[str, NodeVariables]) -> None:
    """Make the variables the module's own: the checkpoint names them as :func:`checkpoint_keys` says."""
    for name, subtree in _tree({name: node.variables for name, node in variables.items()}).items():
        setattr(module, name, subtree)


def checkpoint_keys(quantized: Quantized) -> dict[tuple[str, str], str]:
    """The key in the checkpoint of every array of :func:`stored_arrays`, by node name and role.

    A checkpoint names a variable by the attributes and keys that lead to it, and appends a suffix: the weight
    of the node ``stage1/conv`` becomes ``stage1/conv/weight/.ATTRIBUTES/VARIABLE_VALUE``. It writes every dot
    of a name twice. Where a name is taken, by ``tf.Module`` itself or by a role of a node above
    (``conv/weight`` beside ``conv``), an underscore is appended.
    """
    arrays = stored_arrays(quantized)
    tree = _tree({node: {role: (node, role) for role in roles} for node, roles in arrays.items()})
    return {leaf: f"{path}/.ATTRIBUTES/VARIABLE_VALUE" for path, leaf in _leaves(tree)}


def _tree(leaves: Mapping[str, Mapping[str, object]]) -> Tree:
    """Leaves by role by node name as a tree with a level at every slash of a name."""
    root: Tree = {}
    for name, roles in leaves.items():
        if roles:
            tree = root
            for part in name.split("/"):
                tree = _subtree(tree, part)
            for role, leaf in roles.items():
                tree[_unused(tree, role)] = leaf
    legal: Tree = {}
    module = tf.Module()
    for name, subtree in root.items():
        attribute = name
        while hasattr(module, attribute) or attribute in legal:
            attribute += "_"
        legal[attribute] = subtree
    return legal


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


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with the path that a checkpoint gives it."""
    for name, value in tree.items():
        path = prefix + name.replace(".", "..")
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}/")
        else:
            yield path, value
