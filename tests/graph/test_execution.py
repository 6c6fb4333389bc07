"""The NumPy execution against TensorFlow's own operators."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from resnet_edge.graph import INPUT_NAME, Graph, windows
from resnet_edge.graph.execution import execute, execute_all, execute_nodes, execute_operator
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
from tests.graph_builder import GraphBuilder, images
from tests.graphs import OPERATOR_GRAPHS

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def _subclasses(kind: type[Operator]) -> Iterator[type[Operator]]:
    for subclass in kind.__subclasses__():
        yield from _subclasses(subclass) if subclass.__name__.startswith("_") else [subclass]


def _pads(padding: Padding, channels: tuple[int, int] = (0, 0)) -> list[tuple[int, int]]:
    return [(0, 0), (padding.top, padding.bottom), (padding.left, padding.right), channels]


def _average(op: AveragePool2D, x: tf.Tensor) -> tf.Tensor:
    """The pooled map over the pooled share of real cells: TensorFlow pads average pools only as SAME does."""

    def pool(tensor: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(tf.pad(tensor, _pads(op.padding)), op.size, op.strides, "VALID")

    return pool(x) / pool(tf.ones_like(x))


def _tensorflow(op: Operator, *inputs: tf.Tensor) -> tf.Tensor:  # noqa: C901 - one case an operator
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


@cache
def _graphs() -> dict[str, Graph]:
    builder = GraphBuilder((6, 5, 3))
    affine = builder.classified(builder.affine(builder.image))
    return OPERATOR_GRAPHS | {"affine": affine}


@pytest.mark.parametrize("name", _graphs())
def test_equals_tensorflow(name: str) -> None:
    graph = _graphs()[name]
    batch = images(graph)
    tensors: dict[str, Any] = {INPUT_NAME: tf.constant(batch)}
    for node in graph.nodes[1:]:
        tensors[node.name] = _tensorflow(node.op, *(tensors[source] for source in node.inputs))
    ours = execute_all(graph, batch)
    assert ours.keys() == tensors.keys()
    for key, theirs in tensors.items():
        assert ours[key].dtype == np.float32
        assert ours[key].shape == (len(batch), *graph.shapes[key])
        # Both sum up to a few thousand float32 products of magnitude 1, each in its own order.
        np.testing.assert_allclose(ours[key], theirs.numpy(), rtol=1e-5, atol=1e-5, err_msg=key)


def test_graphs_cover_every_operator() -> None:
    covered = {type(node.op) for graph in _graphs().values() for node in graph.nodes}
    assert covered == set(_subclasses(Operator))  # type: ignore[type-abstract]
    functions = {
        node.op.function
        for graph in _graphs().values()
        for node in graph.nodes
        if isinstance(node.op, Elementwise)
    }
    assert functions == set(Function)


@pytest.mark.parametrize("name", ["conv_stride2_same_odd", "conv_groups2", "conv_dilation2_same"])
@pytest.mark.parametrize("budget", [1, 3000])
def test_chunks_of_patches_do_not_change_a_convolution(
    name: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = OPERATOR_GRAPHS[name]
    batch = images(graph, 5)
    whole = execute(graph, batch)
    monkeypatch.setattr(windows, "PATCH_BYTES", budget)
    # BLAS may order the sums of a smaller matrix differently.
    np.testing.assert_allclose(execute(graph, batch), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["conv_covers_map", "conv_groups2", "dense_relu_dense_relu6"])
def test_products_of_few_rows_equal_those_of_many(name: str) -> None:
    graph = OPERATOR_GRAPHS[name]
    batch = images(graph, 3 * windows.FEW_ROWS)
    one_by_one = np.concatenate([execute(graph, batch[i : i + 1]) for i in range(len(batch))])
    # BLAS sums in another order.
    np.testing.assert_allclose(one_by_one, execute(graph, batch), rtol=1e-5, atol=1e-6)


def test_tensors_are_let_go_after_their_last_use() -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    running = execute_nodes(graph, images(graph))
    most = 0
    for _ in running:
        assert running.gi_frame is not None  # type: ignore[attr-defined]
        most = max(most, len(running.gi_frame.f_locals["live"]))  # type: ignore[attr-defined]
    # The shortcut, the branch, and the sum of both.
    assert most <= 3


def test_output_inside_the_graph_is_kept() -> None:
    builder = GraphBuilder((4, 4, 2))
    pooled = builder.add(GlobalAveragePool(), builder.image)
    graph = builder.graph(builder.dense(pooled, 3))
    early = Graph(name="early", nodes=graph.nodes, output=pooled)
    np.testing.assert_array_equal(execute(early, images(early)), images(early).mean(axis=(1, 2)))


def test_inputs_are_not_written_to() -> None:
    graph = OPERATOR_GRAPHS["add_itself"]
    batch = images(graph)
    before = batch.copy()
    execute(graph, batch)
    np.testing.assert_array_equal(batch, before)


def test_float64_images_are_run_in_float32() -> None:
    graph = OPERATOR_GRAPHS["conv_3x3_same"]
    batch = images(graph)
    wide: Any = batch.astype(np.float64)
    np.testing.assert_array_equal(execute(graph, wide), execute(graph, batch))


def test_images_of_another_shape_are_refused() -> None:
    graph = OPERATOR_GRAPHS["conv_3x3_same"]
    with pytest.raises(ValueError, match=r"takes images \(N, 8, 8, 3\), got \(2, 8, 8, 4\)"):
        execute(graph, np.zeros((2, 8, 8, 4), np.float32))


@pytest.mark.parametrize("function", [Function.SIGMOID, Function.SOFTMAX, Function.TANH, Function.SWISH])
def test_functions_of_extreme_values_stay_finite(function: Function) -> None:
    x = np.array([[-1e30, -200, 0, 200, 1e30]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(execute_operator(Elementwise(function=function), x)).all()


def test_unknown_operator_is_an_error() -> None:
    class Foreign(Operator):
        def infer(self, inputs: Any) -> Any:
            return inputs[0]

    with pytest.raises(NotImplementedError, match="Foreign"):
        execute_operator(Foreign(), np.ones((1, 1), np.float32))
