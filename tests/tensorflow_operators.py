"""TensorFlow's own operators: what the NumPy ones and their derivatives have to equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from resnet_edge.graph import INPUT_NAME
from resnet_edge.graph.operators import (
    Activation,
    Add,
    Affine,
    AveragePool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    LeakyRelu,
    MaxPool2D,
    Multiply,
    Operator,
    Pad,
    Permute,
    PRelu,
    Reshape,
    Slice,
    Subtract,
    Upsample2D,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.graph.geometry import Padding

_FUNCTIONS = {
    Function.RELU: tf.nn.relu,
    Function.RELU6: tf.nn.relu6,
    Function.SIGMOID: tf.nn.sigmoid,
    Function.SOFTMAX: tf.nn.softmax,
    Function.TANH: tf.nn.tanh,
    Function.SWISH: tf.nn.silu,
    Function.HARD_SIGMOID: lambda x: tf.nn.relu6(x + 3) / 6,
    Function.HARD_SWISH: lambda x: x * tf.nn.relu6(x + 3) / 6,
}


def _pads(padding: Padding, channels: tuple[int, int] = (0, 0)) -> list[tuple[int, int]]:
    return [(0, 0), (padding.top, padding.bottom), (padding.left, padding.right), channels]


def _average(op: AveragePool2D, x: tf.Tensor) -> tf.Tensor:
    """The pooled map over the pooled share of real cells: TensorFlow pads average pools only as SAME does."""

    def pool(tensor: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(tf.pad(tensor, _pads(op.padding)), op.size, op.strides, "VALID")

    return pool(x) / pool(tf.ones_like(x))


def tensorflow_operator(op: Operator, *inputs: tf.Tensor) -> tf.Tensor:  # noqa: C901 - one case an operator
    """The operator's output."""
    x = inputs[0]
    match op:
        case Conv2D():
            padded = tf.pad(x, _pads(op.padding))
            y = tf.nn.conv2d(padded, op.weight, op.strides, "VALID", dilations=op.dilation) + op.bias
        case DepthwiseConv2D():
            padded = tf.pad(x, _pads(op.padding))
            strides = (1, *op.strides, 1)
            y = tf.nn.depthwise_conv2d(padded, op.weight, strides, "VALID", dilations=op.dilation) + op.bias
        case Dense():
            y = tf.linalg.matmul(x, op.weight) + op.bias
        case BatchNorm():
            y = tf.nn.batch_normalization(x, op.mean, op.variance, op.beta, op.gamma, op.epsilon)
        case Affine():
            y = x * op.scale + op.offset
        case Elementwise():
            y = _FUNCTIONS[op.function](x)
        case LeakyRelu():
            y = tf.nn.leaky_relu(x, op.alpha)
        case PRelu():
            y = tf.nn.relu(x) - op.alpha * tf.nn.relu(-x)
        case Add():
            y = x + inputs[1]
        case Multiply():
            y = x * inputs[1]
        case Subtract():
            y = x - inputs[1]
        case Concat():
            y = tf.concat(inputs, -1)
        case MaxPool2D():
            y = tf.nn.max_pool2d(x, op.size, op.strides, _pads(op.padding))
        case AveragePool2D():
            y = _average(op, x)
        case GlobalAveragePool():
            y = tf.reduce_mean(x, (1, 2), keepdims=op.keepdims)
        case GlobalMaxPool():
            y = tf.reduce_max(x, (1, 2), keepdims=op.keepdims)
        case Reshape():
            y = tf.reshape(x, (-1, *op.shape))
        case Pad():
            y = tf.pad(x, _pads(op.padding, op.channels))
        case Slice():
            y = tf.strided_slice(x, (0, *op.begin), (len(x), *op.end), (1, *op.strides))
        case Upsample2D():
            size = [extent * times for extent, times in zip(x.shape[1:3], op.size, strict=True)]
            y = tf.image.resize(x, size, "bilinear" if op.bilinear else "nearest")
        case Permute():
            y = tf.transpose(x, (0, *(axis + 1 for axis in op.order)))
        case _:
            raise AssertionError(f"no TensorFlow counterpart of {op}")
    activation = getattr(op, "activation", Activation.NONE)
    return y if activation is Activation.NONE else _FUNCTIONS[Function(activation)](y)


def tensorflow_tensors(graph: Graph, batch: NDArray[Any]) -> dict[str, tf.Tensor]:
    """Every node's tensor by name; a gradient tape that is open records how each is made."""
    tensors = {INPUT_NAME: tf.convert_to_tensor(batch)}
    for node in graph.nodes[1:]:
        tensors[node.name] = tensorflow_operator(node.op, *(tensors[source] for source in node.inputs))
    return tensors
