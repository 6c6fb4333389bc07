"""What each operator of the graph is in TensorFlow, one function an operator.

Written with raw operators where the ones of ``tf.nn`` would add shape arithmetic or gradients to the graph.
Tensors are NHWC, as in the graph.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
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
from resnet_edge.tensorflow_import import tf
from resnet_edge_converters.savedmodel_constants import NodeConstants

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

raw = tf.raw_ops


@singledispatch
def compute(_op: Operator, constants: NodeConstants, /, *_inputs: tf.Tensor) -> tf.Tensor:
    """The operator's output tensor, in the function that is being traced.

    Raises:
        ConversionFailedError: The operator has no form in TensorFlow.
    """
    node = constants.node
    raise ConversionFailedError(
        f"{type(node.op).__name__} cannot be written as SavedModel", where=node.source or node.name
    )


@compute.register
def _conv2d(op: Conv2D, constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return _convolve(op, constants, x, constants.tensors["weight"])


@compute.register
def _depthwise_conv2d(op: DepthwiseConv2D, constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    weight = constants.tensors["weight"]
    if op.strides[0] != op.strides[1] or op.dilation != (1, 1):
        # TensorFlow's depthwise kernel takes neither; its grouped convolution gives the same in all cases.
        height, width, channels, multiplier = op.weight.shape
        return _convolve(op, constants, x, tf.reshape(weight, [height, width, 1, channels * multiplier]))
    padding = _padding(op.padding, x, op.kernel, op.strides)
    if padding["padding"] == "EXPLICIT":
        # The depthwise operator takes explicit padding too, but TensorFlow's graph optimizer aborts on it.
        x, padding = _padded(x, op.padding), {"padding": "VALID"}
    y = raw.DepthwiseConv2dNative(input=x, filter=weight, strides=[1, *op.strides, 1], **padding)
    return _activate(raw.BiasAdd(value=y, bias=constants.tensors["bias"]), op.activation)


def _convolve(
    op: Conv2D | DepthwiseConv2D, constants: NodeConstants, x: tf.Tensor, weight: tf.Tensor
) -> tf.Tensor:
    y = raw.Conv2D(
        input=x,
        filter=weight,
        strides=[1, *op.strides, 1],
        dilations=[1, *op.dilation, 1],
        **_padding(op.padding, x, op.kernel, op.strides, op.dilation),
    )
    bias = constants.tensors["bias"]
    grouped = weight.shape[2] != x.shape[3]
    # TensorFlow's graph optimizer fuses BiasAdd, not Add, into a convolution, and the fused kernel takes no
    # groups where oneDNN is switched off.
    y = raw.AddV2(x=y, y=bias) if grouped else raw.BiasAdd(value=y, bias=bias)
    return _activate(y, op.activation)


def _padding(
    padding: Padding,
    x: tf.Tensor,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> dict[str, object]:
    """The attributes that say ``padding``, by name where it has one."""
    if not padding:
        return {"padding": "VALID"}
    if padding == Padding.same(x.shape[1:3], kernel, strides, dilation):
        return {"padding": "SAME"}
    rows, columns = (padding.top, padding.bottom), (padding.left, padding.right)
    return {"padding": "EXPLICIT", "explicit_paddings": [0, 0, *rows, *columns, 0, 0]}


def _activate(x: tf.Tensor, activation: Activation) -> tf.Tensor:
    if activation is Activation.RELU:
        return raw.Relu(features=x)
    return raw.Relu6(features=x) if activation is Activation.RELU6 else x


@compute.register
def _dense(op: Dense, constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    y = raw.MatMul(a=x, b=constants.tensors["weight"])
    return _activate(raw.BiasAdd(value=y, bias=constants.tensors["bias"]), op.activation)


@compute.register
def _batch_norm(op: BatchNorm, constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    roles = {"mean": "mean", "variance": "variance", "offset": "beta", "scale": "gamma"}
    values = {name: constants.tensors[role] for name, role in roles.items()}
    if x.shape.rank != 4:
        return tf.nn.batch_normalization(x, **values, variance_epsilon=op.epsilon)
    return raw.FusedBatchNormV3(x=x, **values, epsilon=op.epsilon, is_training=False).y


_FUNCTIONS: dict[Function, Callable[[tf.Tensor], tf.Tensor]] = {
    Function.RELU: lambda x: raw.Relu(features=x),
    Function.RELU6: lambda x: raw.Relu6(features=x),
    Function.SIGMOID: lambda x: raw.Sigmoid(x=x),
    Function.SOFTMAX: lambda x: raw.Softmax(logits=x),
    Function.TANH: lambda x: raw.Tanh(x=x),
    Function.SWISH: lambda x: x * raw.Sigmoid(x=x),
    Function.HARD_SIGMOID: lambda x: raw.Relu6(features=x + 3.0) / 6.0,
    # Not by Relu6: TensorFlow's oneDNN rewriter would recognize it and fuse more than its kernels know.
    Function.HARD_SWISH: lambda x: x * tf.clip_by_value(x / 6.0 + 0.5, 0.0, 1.0),
}


@compute.register
def _elementwise(op: Elementwise, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return _FUNCTIONS[op.function](x)


@compute.register
def _leaky_relu(op: LeakyRelu, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return raw.LeakyRelu(features=x, alpha=op.alpha)


@compute.register
def _prelu(_op: PRelu, constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return raw.Relu(features=x) - constants.tensors["alpha"] * raw.Relu(features=-x)


@compute.register
def _add(op: Add, _constants: NodeConstants, a: tf.Tensor, b: tf.Tensor, /) -> tf.Tensor:
    return _activate(a + b, op.activation)


@compute.register
def _multiply(_op: Multiply, _constants: NodeConstants, a: tf.Tensor, b: tf.Tensor, /) -> tf.Tensor:
    return a * b


@compute.register
def _subtract(_op: Subtract, _constants: NodeConstants, a: tf.Tensor, b: tf.Tensor, /) -> tf.Tensor:
    return a - b


@compute.register
def _concat(_op: Concat, _constants: NodeConstants, /, *inputs: tf.Tensor) -> tf.Tensor:
    return tf.concat(inputs, axis=-1)


@compute.register
def _max_pool(op: MaxPool2D, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    padding = _padding(op.padding, x, op.size, op.strides)
    return raw.MaxPool(input=x, ksize=[1, *op.size, 1], strides=[1, *op.strides, 1], **padding)


@compute.register
def _average_pool(op: AveragePool2D, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    window = {"ksize": [1, *op.size, 1], "strides": [1, *op.strides, 1]}
    padding = _padding(op.padding, x, op.size, op.strides)
    if padding["padding"] != "EXPLICIT":
        return raw.AvgPool(value=x, **window, **padding)
    # The operator has no explicit padding, and would count zeros that were padded before: so the mean of each
    # window is scaled from all its cells to those inside the map.
    inside = _cells_inside(op, x.shape.as_list()[1:3])
    mean = raw.AvgPool(value=_padded(x, op.padding), **window, padding="VALID")
    return mean * tf.constant(np.prod(op.size) / inside, tf.float32)


def _cells_inside(op: AveragePool2D, size: tuple[int, int]) -> NDArray[np.int64]:
    """How many cells of each window lie inside the map, not its padding: (1, rows, columns, 1)."""
    counts = []
    borders = ((op.padding.top, op.padding.bottom), (op.padding.left, op.padding.right))
    for extent, window, stride, (before, after) in zip(size, op.size, op.strides, borders, strict=True):
        first = np.arange(-before, extent + after - window + 1, stride)
        counts.append(np.minimum(first + window, extent) - np.maximum(first, 0))
    return np.outer(*counts)[None, ..., None]


@compute.register
def _global_average_pool(op: GlobalAveragePool, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return raw.Mean(input=x, axis=[1, 2], keep_dims=op.keepdims)


@compute.register
def _global_max_pool(op: GlobalMaxPool, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return raw.Max(input=x, axis=[1, 2], keep_dims=op.keepdims)


@compute.register
def _reshape(op: Reshape, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return raw.Reshape(tensor=x, shape=[-1, *op.shape])


@compute.register
def _pad(op: Pad, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return _padded(x, op.padding, op.channels)


def _padded(x: tf.Tensor, padding: Padding, channels: tuple[int, int] = (0, 0)) -> tf.Tensor:
    rows, columns = (padding.top, padding.bottom), (padding.left, padding.right)
    widths = [(0, 0), rows, columns, channels]
    if any(channels):
        # TensorFlow's graph optimizer fuses Pad, not PadV2, into a convolution, and forgets the channels.
        return raw.PadV2(input=x, paddings=widths, constant_values=0.0)
    return raw.Pad(input=x, paddings=widths)


@compute.register
def _slice(op: Slice, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return x[:, *(slice(b, e, s) for b, e, s in zip(op.begin, op.end, op.strides, strict=True))]


@compute.register
def _upsample(op: Upsample2D, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    resize = raw.ResizeBilinear if op.bilinear else raw.ResizeNearestNeighbor
    size = [extent * times for extent, times in zip(x.shape[1:3], op.size, strict=True)]
    return resize(images=x, size=size, half_pixel_centers=True)


@compute.register
def _permute(op: Permute, _constants: NodeConstants, x: tf.Tensor, /) -> tf.Tensor:
    return raw.Transpose(x=x, perm=[0, *(1 + axis for axis in op.order)])
