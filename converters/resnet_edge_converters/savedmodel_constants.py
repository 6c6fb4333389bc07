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

Tree: TypeAlias = dict[str, Any]
"""Leaves and further trees by name."""


@dataclass(frozen=True, kw_only=True)
class NodeConstants:
    """What an operator reads when the function is traced.

    Attributes:
        node: The graph node.
        variables: Its variables by role.
        quants: How a constant is stored, by its role in the graph; one that is missing here is float32.
        input_activation: Scale and zero point of the node's input, where it is quantized.
    """

    node: Node
    variables: Mapping[str, tf.Variable]
    quants: Mapping[str, ConstantQuant]
    input_activation: tf.Variable | None

    def tensor(self, role: str) -> tf.Tensor:
        """The constant of that role in float32, as the operator computes with it."""
        quant = self.quants.get(role)
        if quant is None:
            return self.variables[role].read_value()
        stored = tf.cast(self.variables[stored_role(role, quant)].read_value(), tf.float32)
        return stored if quant.dtype == "float16" else stored * self._steps(quant, stored.shape)

    def _steps(self, quant: ConstantQuant, shape: tf.TensorShape) -> tf.Tensor:
        """What a step of each integer is worth, in a shape that broadcasts to the constant's."""
        scale = self.variables[SCALE].read_value()
        if quant.dtype != "int8":  # a bias counts in steps of the products that it is added to
            input_scale, _ = tf.unstack(self.input_activation)
            scale = input_scale * scale
        # A depthwise weight has its output channels in its last two dimensions, all others in the last.
        return scale if quant.axis is None else tf.reshape(scale, shape[quant.axis :])


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


def make_variables(quantized: Quantized) -> dict[str, NodeConstants]:
    """Every node's variables by the node's name.

    Variables and not constants: TensorFlow's graph optimizer would multiply constant integers by their scales
    once and for all, and keep float32 weights.
    """
    constants: dict[str, NodeConstants] = {}
    arrays = stored_arrays(quantized)
    for node in quantized.graph.nodes:
        roles = {role: quantized.spec.constants.get(f"{node.name}/{role}") for role in node.op.weights()}
        source = constants[node.inputs[0]].variables if node.inputs else {}
        constants[node.name] = NodeConstants(
            node=node,
            variables={
                role: tf.Variable(array, trainable=False, name=f"{scope(node.name)}/{role}")
                for role, array in arrays[node.name].items()
            },
            quants={role: quant for role, quant in roles.items() if quant is not None},
            input_activation=source.get(ACTIVATION),
        )
    return constants


def attach(module: tf.Module, constants: Mapping[str, NodeConstants]) -> None:
    """Make the variables the module's own: the checkpoint names them as :func:`checkpoint_keys` says."""
    for name, subtree in _tree({name: node.variables for name, node in constants.items()}).items():
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
