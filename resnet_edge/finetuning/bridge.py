"""The folded graph as a ``tf_keras`` model, and its trained weights back in the graph.

Every node becomes one layer of the node's name (TensorFlow's rule for names is the graph's own). Convolutions
and dense layers are ``tf_keras``' own classes, because tensorflow-model-optimization goes by class; whatever
has no weights is an :class:`~resnet_edge.finetuning.operations.Operation`. A padding that SAME does not
express is a layer of its own in front.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from resnet_edge.errors import ModelRejectedError
from resnet_edge.finetuning.frameworks import tf, tf_keras
from resnet_edge.finetuning.operations import Operation, runs
from resnet_edge.graph import GraphEditor
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import Activation, Conv2D, Dense, DepthwiseConv2D, Input, Pad

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Shape

PADDING = "/padding"
"""Ends the names of layers that pad in front of another; doubled until no node has the name."""

_ACTIVATIONS = {Activation.NONE: None, Activation.RELU: tf.nn.relu, Activation.RELU6: tf.nn.relu6}

_MOST_LISTED = 5


class Wrap(Protocol):
    """What is put around a node's layer: a wrapper of tensorflow-model-optimization, or nothing."""

    def __call__(self, node: Node, layer: Any) -> Any:
        """The layer to call in the layer's place."""
        ...


def check_operators(nodes: Iterable[Node]) -> None:
    """Accept a graph whose operators can all be fine-tuned.

    Raises:
        ModelRejectedError: Others occur; names them.
    """
    refused = [node for node in nodes if not _is_known(node)]
    if refused:
        listed = ", ".join(
            f"{getattr(node.op, 'function', type(node.op).__name__)} {node.source or node.name!r}"
            for node in refused[:_MOST_LISTED]
        )
        raise ModelRejectedError(
            "the model has operators that cannot be fine-tuned"
            if len(refused) > 1
            else "the model has an operator that cannot be fine-tuned",
            where=listed + (" ..." if len(refused) > _MOST_LISTED else ""),
            allowed="convolutions, dense layers, ReLU, ReLU6, sigmoid, softmax, additions, products, "
            "concatenations, pools, paddings, slices, reshapes",
            next_step="train the model in Keras, and export it again",
        )


def _is_known(node: Node) -> bool:
    if isinstance(node.op, Conv2D | DepthwiseConv2D):
        # tf_keras, as Keras itself, knows no window that is both.
        return node.op.strides == (1, 1) or node.op.dilation == (1, 1)
    return isinstance(node.op, Input | Dense) or runs(node.op)


def to_tf_keras(graph: Graph, wrap: Wrap | None = None) -> Any:
    """A functional ``tf_keras.Model`` that computes what the graph computes.

    Args:
        graph: Folded; every Input but the image is refused like an unknown operator.
        wrap: Put around every node's layer, the input's (an identity) too; None for bare layers.

    Returns:
        The model; images (N, height, width, channels) to (N, classes).

    Raises:
        ModelRejectedError: An operator cannot be fine-tuned; names it.
    """
    check_operators(graph.nodes)
    tensors: dict[str, Any] = {}
    image = tf_keras.Input(graph.input_shape, name="pixels")
    for node in graph.nodes:
        inputs = [tensors[name] for name in node.inputs] or [image]
        if isinstance(node.op, Conv2D | DepthwiseConv2D):
            inputs = [_pad(node, inputs[0], graph)]
        layer = _layer(node, graph)
        layer = wrap(node, layer) if wrap else layer
        tensors[node.name] = layer(inputs if len(inputs) > 1 else inputs[0])
    return tf_keras.Model(image, tensors[graph.output], name="model")


def _pad(node: Node, tensor: Any, graph: Graph) -> Any:
    """The convolution's input, padded where the layer itself cannot."""
    op = node.op
    assert isinstance(op, Conv2D | DepthwiseConv2D)  # noqa: S101 - the caller's condition
    if _padding_mode(op, graph.shapes[node.inputs[0]]) != "explicit":
        return tensor
    name = node.name + PADDING
    while name in graph.by_name:
        name += PADDING
    return Operation(Pad(padding=op.padding), name=name)(tensor)


def _padding_mode(op: Conv2D | DepthwiseConv2D, shape: Shape) -> str:
    """``valid`` or ``same`` where they say what the operator says, else ``explicit``."""
    if op.padding == Padding():
        return "valid"
    size = shape[:2]
    return "same" if op.padding == Padding.same(size, op.kernel, op.strides, op.dilation) else "explicit"


def _layer(node: Node, graph: Graph) -> Any:
    """The node's layer; its weights come to be when it is first called."""
    op, layers = node.op, tf_keras.layers
    if isinstance(op, Input):
        return layers.Activation("linear", name=node.name)
    if not isinstance(op, Conv2D | DepthwiseConv2D | Dense):
        return Operation(op, name=node.name)
    # Wrappers look at the weights when they are built, so the weights have to be right from the start.
    weight, bias = (tf_keras.initializers.Constant(value) for value in (op.weight, op.bias))
    settings = {"activation": _ACTIVATIONS[op.activation], "bias_initializer": bias, "name": node.name}
    if isinstance(op, Dense):
        return layers.Dense(op.bias.size, kernel_initializer=weight, **settings)
    mode = _padding_mode(op, graph.shapes[node.inputs[0]])
    settings |= {
        "kernel_size": op.kernel,
        "strides": op.strides,
        "dilation_rate": op.dilation,
        "padding": "same" if mode == "same" else "valid",
    }
    if isinstance(op, DepthwiseConv2D):
        multiplier = op.weight.shape[3]
        return layers.DepthwiseConv2D(depth_multiplier=multiplier, depthwise_initializer=weight, **settings)
    return layers.Conv2D(op.bias.size, groups=op.groups, kernel_initializer=weight, **settings)


def from_tf_keras(model: Any, graph: Graph) -> Graph:
    """The graph with the weights of a model that :func:`to_tf_keras` made of it.

    Raises:
        ValueError: The model is another graph's.
    """
    layers = {layer.name: layer for layer in model.layers}
    linear = [node.name for node in graph.nodes if isinstance(node.op, Conv2D | DepthwiseConv2D | Dense)]
    missing = [name for name in linear if name not in layers]
    if missing:
        raise ValueError(f"the model has no layer {missing[0]!r}")
    return with_weights(graph, {name: layers[name].get_weights() for name in linear})


def with_weights(graph: Graph, weights: Mapping[str, Sequence[Any]]) -> Graph:
    """The graph with other weights.

    Args:
        graph: The graph.
        weights: Weight and bias by node name, as arrays or variables.
    """
    editor = GraphEditor(graph)
    for name, pair in weights.items():
        weight, bias = (np.array(value, np.float32) for value in pair)
        editor.set_op(name, replace(editor.node(name).op, weight=weight, bias=bias))  # type: ignore[type-var]
    return editor.graph()
