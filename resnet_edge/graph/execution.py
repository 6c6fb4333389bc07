"""Float execution of a graph in NumPy: the reference that every pass and every precision is measured against.

One function an operator, vectorized over the batch. Tensors are float32, ``(N, height, width, channels)`` or
``(N, features)``; sums are accumulated by BLAS in float32.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

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
from resnet_edge.graph.windows import convolve, convolve_depthwise, matrix_product, padded, reduce_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from resnet_edge.graph.graph import Graph, Node

Tensor: TypeAlias = NDArray[np.float32]
AnyTensor: TypeAlias = NDArray[Any]


def execute(graph: Graph, images: Tensor) -> Tensor:
    """The model's outputs, (N, classes), for images (N, height, width, channels).

    Raises:
        ValueError: The images have another shape than the graph's input.
    """
    output = images
    for node, tensor in execute_nodes(graph, images):
        if node.name == graph.output:
            output = tensor
    return output


def execute_all(graph: Graph, images: Tensor) -> dict[str, Tensor]:
    """Every node's tensor by the node's name, all in memory at once.

    Raises:
        ValueError: The images have another shape than the graph's input.
    """
    return {node.name: tensor for node, tensor in execute_nodes(graph, images)}


def execute_nodes(graph: Graph, images: Tensor) -> Iterator[tuple[Node, Tensor]]:
    """Every node with its tensor, in order; a tensor is let go after its last use.

    Raises:
        ValueError: The images have another shape than the graph's input.
    """
    return stream(graph, images, lambda node, inputs: execute_operator(node.op, *inputs))


def stream(
    graph: Graph, images: Tensor, run: Callable[[Node, Sequence[AnyTensor]], AnyTensor]
) -> Iterator[tuple[Node, AnyTensor]]:
    """Every node with what ``run`` makes of it and its inputs; the images are the first node's input.

    Raises:
        ValueError: The images have another shape than the graph's input.
    """
    if images.shape[1:] != graph.input_shape:
        raise ValueError(f"takes images (N, {', '.join(map(str, graph.input_shape))}), got {images.shape}")
    last_use = {name: node.name for node in graph.nodes for name in node.inputs}
    live: dict[str, AnyTensor] = {}
    for node in graph.nodes:
        inputs: list[AnyTensor] = [live[name] for name in node.inputs] or [np.asarray(images, np.float32)]
        tensor = live[node.name] = run(node, inputs)
        del inputs
        for name in {*node.inputs, node.name}:
            if last_use.get(name, node.name) == node.name:
                del live[name]
        yield node, tensor


def execute_operator(op: Operator, *inputs: Tensor) -> Tensor:
    """One operator's output; an ``Input`` hands its images on."""
    result: NDArray[np.floating] = _run(op, *inputs)
    return result.astype(np.float32, copy=False)


@singledispatch
def _run(op: Operator, /, *_inputs: Tensor) -> Tensor:
    raise NotImplementedError(f"no float execution of {type(op).__name__}")


@_run.register
def _input(_op: Input, images: Tensor, /) -> Tensor:
    return images


@_run.register
def _conv2d(op: Conv2D, x: Tensor, /) -> Tensor:
    out = convolve(
        padded(x, op.padding), op.weight, strides=op.strides, dilation=op.dilation, groups=op.groups
    )
    return _activated(_add_bias(out, op.bias), op.activation)


def _add_bias(x: Tensor, bias: Tensor) -> Tensor:
    x += bias
    return x


def _activated(x: Tensor, activation: Activation) -> Tensor:
    """The fused activation, in place: the operator's output is its own."""
    if activation is Activation.NONE:
        return x
    return np.clip(x, 0.0, 6.0 if activation is Activation.RELU6 else None, out=x)


@_run.register
def _depthwise_conv2d(op: DepthwiseConv2D, x: Tensor, /) -> Tensor:
    out = convolve_depthwise(padded(x, op.padding), op.weight, strides=op.strides, dilation=op.dilation)
    return _activated(_add_bias(out, op.bias), op.activation)


@_run.register
def _dense(op: Dense, x: Tensor, /) -> Tensor:
    return _activated(_add_bias(matrix_product(x, op.weight), op.bias), op.activation)


@_run.register
def _batch_norm(op: BatchNorm, x: Tensor, /) -> Tensor:
    scale: Tensor = op.gamma / np.sqrt(op.variance + np.float32(op.epsilon))
    return (x - op.mean) * scale + op.beta


@_run.register
def _affine(op: Affine, x: Tensor, /) -> Tensor:
    return x * op.scale + op.offset


@_run.register
def _elementwise(op: Elementwise, x: Tensor, /) -> Tensor:
    return _FUNCTIONS[op.function](x)


def _relu(x: Tensor) -> Tensor:
    return np.maximum(x, 0)


def _relu6(x: Tensor) -> Tensor:
    return np.clip(x, 0, 6)


def _sigmoid(x: Tensor) -> Tensor:
    # 1 / (1 + exp(-x)) overflows for large negative x; this form does not.
    return np.exp(-np.logaddexp(np.float32(0), -x, dtype=np.float32))


def _softmax(x: Tensor) -> Tensor:
    powers: Tensor = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Tensor = powers.sum(axis=-1, keepdims=True)
    return powers / total


def _hard_sigmoid(x: Tensor) -> Tensor:
    return np.clip(x + 3, 0, 6) / np.float32(6)


_FUNCTIONS: dict[Function, Callable[[Tensor], Tensor]] = {
    Function.RELU: _relu,
    Function.RELU6: _relu6,
    Function.SIGMOID: _sigmoid,
    Function.SOFTMAX: _softmax,
    Function.TANH: np.tanh,
    Function.SWISH: lambda x: x * _sigmoid(x),
    Function.HARD_SIGMOID: _hard_sigmoid,
    Function.HARD_SWISH: lambda x: x * _hard_sigmoid(x),
}


@_run.register
def _leaky_relu(op: LeakyRelu, x: Tensor, /) -> Tensor:
    return np.where(x >= 0, x, np.float32(op.alpha) * x)


@_run.register
def _prelu(op: PRelu, x: Tensor, /) -> Tensor:
    return np.where(x >= 0, x, op.alpha * x)


@_run.register
def _add(op: Add, a: Tensor, b: Tensor, /) -> Tensor:
    return _activated(a + b, op.activation)


@_run.register
def _multiply(_op: Multiply, a: Tensor, b: Tensor, /) -> Tensor:
    return a * b


@_run.register
def _subtract(_op: Subtract, a: Tensor, b: Tensor, /) -> Tensor:
    return a - b


@_run.register
def _concat(_op: Concat, /, *inputs: Tensor) -> Tensor:
    return np.concatenate(inputs, axis=-1)


@_run.register
def _max_pool(op: MaxPool2D, x: Tensor, /) -> Tensor:
    return reduce_windows(np.maximum, padded(x, op.padding, -math.inf), size=op.size, strides=op.strides)


@_run.register
def _average_pool(op: AveragePool2D, x: Tensor, /) -> Tensor:
    ones = np.ones((1, *x.shape[1:3], 1), np.float32)
    sums, counts = (
        reduce_windows(np.add, padded(tensor, op.padding), size=op.size, strides=op.strides)
        for tensor in (x, ones)
    )
    mean: Tensor = sums / counts
    return mean


@_run.register
def _global_average_pool(op: GlobalAveragePool, x: Tensor, /) -> Tensor:
    return np.asarray(x.mean(axis=(1, 2), keepdims=op.keepdims))


@_run.register
def _global_max_pool(op: GlobalMaxPool, x: Tensor, /) -> Tensor:
    return np.asarray(x.max(axis=(1, 2), keepdims=op.keepdims))


@_run.register
def _reshape(op: Reshape, x: Tensor, /) -> Tensor:
    return x.reshape(len(x), *op.shape)


@_run.register
def _pad(op: Pad, x: Tensor, /) -> Tensor:
    return np.pad(padded(x, op.padding), ((0, 0), (0, 0), (0, 0), op.channels))


@_run.register
def _slice(op: Slice, x: Tensor, /) -> Tensor:
    return x[:, *(slice(b, e, s) for b, e, s in zip(op.begin, op.end, op.strides, strict=True))]


@_run.register
def _upsample(op: Upsample2D, x: Tensor, /) -> Tensor:
    for axis, times in zip((1, 2), op.size, strict=True):
        x = _interpolated(x, axis, times) if op.bilinear else np.repeat(x, times, axis)
    return x


def _interpolated(x: Tensor, axis: int, times: int) -> Tensor:
    """Linear interpolation along one axis between pixel centres; beyond the outermost they are repeated."""
    along = np.moveaxis(x, axis, -1)
    extent = along.shape[-1]
    position = (np.arange(extent * times) + 0.5) / times - 0.5
    lower = np.floor(position).astype(int)
    share = (position - lower).astype(np.float32)
    first, second = (along[..., np.clip(lower + i, 0, extent - 1)] for i in (0, 1))
    return np.moveaxis(first + (second - first) * share, -1, axis)


@_run.register
def _permute(op: Permute, x: Tensor, /) -> Tensor:
    return x.transpose(0, *(1 + axis for axis in op.order))
