"""Reverse-mode derivatives of a graph in NumPy: how much each tensor moves what the model says.

One function an operator, vectorized over the batch, beside :mod:`resnet_edge.graph.execution`. At a kink of
ReLU and its kin the derivative is that of the clipped side, zero; of equal maxima, the first one counts.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.execution import Tensor, execute_operator, region, stretched
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
    Input,
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
from resnet_edge.graph.transposed_windows import (
    convolve_depthwise_transposed,
    convolve_transposed,
    padded_size,
    spread,
    to_maxima,
    unpadded,
)
from resnet_edge.graph.windows import cell_counts, matrix_product, padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph.graph import Graph, Node


def backward(
    graph: Graph, tensors: Mapping[str, Tensor], output: str, cotangent: Tensor
) -> dict[str, Tensor]:
    """The gradient of ``sum(cotangent * output)`` with respect to every node's tensor, all in memory at once.

    Args:
        graph: The float graph.
        tensors: What :func:`resnet_edge.graph.execution.execute_all` gave for some images.
        output: Name of the node that is derived; nodes that it does not depend on get zeros.
        cotangent: Weights of the output's elements, in its shape.

    Returns:
        By node name, in the tensors' shapes; two may share their memory.

    Raises:
        ValueError: The cotangent has another shape than the output.
    """
    return {node.name: gradient for node, gradient in backward_nodes(graph, tensors, output, cotangent)}


def backward_nodes(
    graph: Graph, tensors: Mapping[str, Tensor], output: str, cotangent: Tensor
) -> Iterator[tuple[Node, Tensor]]:
    """As :func:`backward`, every node with its gradient, last to first; each is let go after its use.

    Raises:
        ValueError: The cotangent has another shape than the output.
    """
    if cotangent.shape != tensors[output].shape:
        raise ValueError(f"takes a cotangent {tensors[output].shape}, got {cotangent.shape}")
    gradients = {output: cotangent}
    for node in reversed(graph.nodes):
        tensor = tensors[node.name]
        gradient = gradients.pop(node.name, None)
        if gradient is None:
            yield node, np.zeros_like(tensor)
            continue
        parts = _pull_back(node.op, gradient, tensor, *(tensors[name] for name in node.inputs))
        for name, part in zip(node.inputs, parts, strict=True):
            gradients[name] = gradients[name] + part if name in gradients else part
        yield node, gradient


@singledispatch
def _pull_back(op: Operator, _gradient: Tensor, _output: Tensor, /, *_inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradient of each input, from that of the output."""
    raise NotImplementedError(f"no derivative of {type(op).__name__}")


@_pull_back.register
def _input(_op: Input, _gradient: Tensor, _output: Tensor, /) -> tuple[()]:
    return ()


@_pull_back.register
def _conv2d(op: Conv2D, gradient: Tensor, output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    cells = convolve_transposed(
        _before(op.activation, gradient, output),
        op.weight,
        size=padded_size(x, op.padding),
        strides=op.strides,
        dilation=op.dilation,
        groups=op.groups,
    )
    return (unpadded(cells, op.padding),)


def _before(activation: Activation, gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient in front of a fused activation: it holds back what it clips."""
    if activation is Activation.NONE:
        return gradient
    passes = output > 0
    if activation is Activation.RELU6:
        passes &= output < 6
    return gradient * passes


@_pull_back.register
def _depthwise_conv2d(op: DepthwiseConv2D, gradient: Tensor, output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    cells = convolve_depthwise_transposed(
        _before(op.activation, gradient, output),
        op.weight,
        size=padded_size(x, op.padding),
        strides=op.strides,
        dilation=op.dilation,
    )
    return (unpadded(cells, op.padding),)


@_pull_back.register
def _dense(op: Dense, gradient: Tensor, output: Tensor, _x: Tensor, /) -> tuple[Tensor]:
    return (matrix_product(_before(op.activation, gradient, output), op.weight.T),)


@_pull_back.register
def _batch_norm(op: BatchNorm, gradient: Tensor, _output: Tensor, _x: Tensor, /) -> tuple[Tensor]:
    scale: Tensor = op.gamma / np.sqrt(op.variance + np.float32(op.epsilon))
    return (gradient * scale,)


@_pull_back.register
def _affine(op: Affine, gradient: Tensor, _output: Tensor, _x: Tensor, /) -> tuple[Tensor]:
    return (gradient * op.scale,)


@_pull_back.register
def _elementwise(op: Elementwise, gradient: Tensor, output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    if op.function is Function.SOFTMAX:
        mean: Tensor = (gradient * output).sum(axis=-1, keepdims=True)
        return (output * (gradient - mean),)
    return (gradient * _derivative(op.function, x, output),)


def _derivative(function: Function, x: Tensor, y: Tensor) -> Tensor | NDArray[np.bool_]:
    """That of a function of every element, from its argument and its value."""
    match function:
        case Function.RELU:
            return x > 0
        case Function.RELU6:
            return (x > 0) & (x < 6)
        case Function.SIGMOID:
            return y * (1 - y)
        case Function.TANH:
            return 1 - y * y
        case Function.SWISH:
            gate = execute_operator(Elementwise(function=Function.SIGMOID), x)
            return gate + y * (1 - gate)
        case Function.HARD_SIGMOID:
            return (np.abs(x) < 3) * np.float32(1 / 6)
        case Function.HARD_SWISH:
            return np.where(np.abs(x) < 3, x / 3 + np.float32(0.5), (x > 0).astype(x.dtype))
        case Function.SOFTMAX:
            raise ValueError("softmax is not a function of every element by itself")


@_pull_back.register
def _leaky_relu(op: LeakyRelu, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    return (np.where(x >= 0, gradient, np.float32(op.alpha) * gradient),)


@_pull_back.register
def _prelu(op: PRelu, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    return (np.where(x >= 0, gradient, op.alpha * gradient),)


@_pull_back.register
def _add(op: Add, gradient: Tensor, output: Tensor, a: Tensor, b: Tensor, /) -> tuple[Tensor, Tensor]:
    gradient = _before(op.activation, gradient, output)
    return _summed(gradient, a), _summed(gradient, b)


@_pull_back.register
def _multiply(
    _op: Multiply, gradient: Tensor, _output: Tensor, a: Tensor, b: Tensor, /
) -> tuple[Tensor, Tensor]:
    return _summed(gradient * b, a), _summed(gradient * a, b)


@_pull_back.register
def _subtract(
    _op: Subtract, gradient: Tensor, _output: Tensor, a: Tensor, b: Tensor, /
) -> tuple[Tensor, Tensor]:
    return _summed(gradient, a), -_summed(gradient, b)


def _summed(gradient: Tensor, like: Tensor) -> Tensor:
    """The sum over the axes along which an input was broadcast."""
    repeated = tuple(
        axis for axis, extent in enumerate(like.shape) if axis and extent != gradient.shape[axis]
    )
    return np.asarray(gradient.sum(axis=repeated, keepdims=True)) if repeated else gradient


@_pull_back.register
def _concat(_op: Concat, gradient: Tensor, _output: Tensor, /, *inputs: Tensor) -> tuple[Tensor, ...]:
    ends = np.cumsum([x.shape[-1] for x in inputs])
    return tuple(np.split(gradient, ends[:-1], axis=-1))


@_pull_back.register
def _max_pool(op: MaxPool2D, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    cells = to_maxima(gradient, padded(x, op.padding, -math.inf), window=op.size, strides=op.strides)
    return (unpadded(cells, op.padding),)


@_pull_back.register
def _average_pool(op: AveragePool2D, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    share = gradient / cell_counts(x.shape[1:3], op.padding, window=op.size, strides=op.strides)
    cells = spread(share, size=padded_size(x, op.padding), window=op.size, strides=op.strides)
    return (unpadded(cells, op.padding),)


@_pull_back.register
def _global_average_pool(
    _op: GlobalAveragePool, gradient: Tensor, _output: Tensor, x: Tensor, /
) -> tuple[Tensor]:
    n, height, width, channels = x.shape
    share = gradient.reshape(n, 1, 1, channels) / np.float32(height * width)
    return (np.broadcast_to(share, x.shape),)


@_pull_back.register
def _global_max_pool(_op: GlobalMaxPool, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    n, height, width, channels = x.shape
    first = x.reshape(n, -1, channels).argmax(axis=1)[:, None]
    cells = np.zeros((n, height * width, channels), gradient.dtype)
    np.put_along_axis(cells, first, gradient.reshape(n, 1, channels), axis=1)
    return (cells.reshape(x.shape),)


@_pull_back.register
def _reshape(_op: Reshape, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    return (gradient.reshape(x.shape),)


@_pull_back.register
def _pad(op: Pad, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    before = op.channels[0]
    return (unpadded(gradient, op.padding)[..., before : before + x.shape[-1]],)


@_pull_back.register
def _slice(op: Slice, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    whole = np.zeros_like(x)
    whole[region(op)] = gradient
    return (whole,)


@_pull_back.register
def _upsample(op: Upsample2D, gradient: Tensor, _output: Tensor, x: Tensor, /) -> tuple[Tensor]:
    for axis, times in zip((1, 2), op.size, strict=True):
        # Row by row, what one cell of the smaller map is to the larger one.
        matrix = stretched(np.eye(x.shape[axis], dtype=x.dtype), 1, times, bilinear=op.bilinear)
        gradient = np.moveaxis(np.moveaxis(gradient, axis, -1) @ matrix.T, -1, axis)
    return (gradient,)


@_pull_back.register
def _permute(op: Permute, gradient: Tensor, _output: Tensor, _x: Tensor, /) -> tuple[Tensor]:
    return (gradient.transpose(0, *(1 + np.argsort(op.order))),)
