"""Derivatives of graphs against TensorFlow's, and against small steps of the tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings

from resnet_edge.graph import INPUT_NAME, Graph
from resnet_edge.graph.execution import execute, execute_all
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.gradients import backward, backward_nodes
from resnet_edge.graph.operators import (
    Activation,
    Add,
    Elementwise,
    Function,
    GlobalMaxPool,
    MaxPool2D,
    Operator,
)
from tests.graph_builder import GraphBuilder, images
from tests.graphs import EXECUTABLE_GRAPHS, OPERATOR_GRAPHS, residual_graphs
from tests.tensorflow_operators import tensorflow_tensors


def cotangent_of(graph: Graph, count: int) -> Any:
    shape = (count, *graph.shapes[graph.output])
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def assert_equals_tensorflow(graph: Graph, batch: Any) -> None:
    cotangent = cotangent_of(graph, len(batch))
    with tf.GradientTape() as tape:
        image = tf.constant(batch)
        tape.watch(image)
        tensors = tensorflow_tensors(graph, image)
        total = tf.reduce_sum(tensors[graph.output] * cotangent)
    theirs = tape.gradient(total, tensors, unconnected_gradients="zero")
    ours = backward(graph, execute_all(graph, batch), graph.output, cotangent)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert gradient.dtype == np.float32
        expected = theirs[name].numpy()
        # Both sum float32 products, each in its own order, so the largest element sets the rounding.
        largest = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * largest, err_msg=name)


@pytest.mark.parametrize("name", EXECUTABLE_GRAPHS)
def test_gradients_of_every_tensor_equal_tensorflow(name: str) -> None:
    graph = EXECUTABLE_GRAPHS[name]
    assert_equals_tensorflow(graph, images(graph, 3))


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=residual_graphs())
def test_gradients_of_networks_equal_tensorflow(graph: Graph) -> None:
    assert_equals_tensorflow(graph, images(graph))


@pytest.mark.parametrize("name", ["residual_block", "squeeze_and_excitation", "max_pool_overlapping"])
def test_a_small_step_of_the_images_moves_the_output_as_the_gradient_says(name: str) -> None:
    graph = OPERATOR_GRAPHS[name]
    batch, cotangent = images(graph, 8), cotangent_of(graph, 8)
    gradient = backward(graph, execute_all(graph, batch), graph.output, cotangent)[INPUT_NAME]
    # Uphill: the steps' effects add up, far above the rounding of float32.
    step = np.float32(1e-3) * np.sign(gradient)
    up, down = (execute(graph, moved).astype(np.float64) for moved in (batch + step, batch - step))
    # Some of the thousands of elements cross a kink on their way, by a thousandth of their spread.
    assert (cotangent * (up - down)).sum() == pytest.approx(2 * (gradient * step).sum(), rel=1e-2)


def test_tensors_that_the_output_does_not_depend_on_get_zeros() -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    tensors = execute_all(graph, images(graph))
    inner = "stage1/block.0/conv-1"
    ones = np.ones_like(tensors[inner])
    gradients = backward(graph, tensors, inner, ones)
    np.testing.assert_array_equal(gradients[inner], ones)
    assert gradients["stem"].any()
    for name in ("stage1/block.0/shortcut", "stage1/block.0/conv-2", "dense", graph.output):
        assert gradients[name].shape == tensors[name].shape
        assert not gradients[name].any()


def gradient_of(op: Operator, x: Any, cotangent: Any) -> Any:
    """The input's gradient of a graph that is one operator."""
    b = GraphBuilder(x.shape[1:])
    graph = b.graph(b.add(op, b.image))
    return backward(graph, execute_all(graph, x), graph.output, np.asarray(cotangent, np.float32))[b.image]


def test_of_equal_maxima_the_first_is_derived() -> None:
    x = np.array([[0, 2, 2], [2, 1, 0], [2, 0, 0]], np.float32).reshape(1, 3, 3, 1)
    pool = MaxPool2D(size=(2, 2), strides=(1, 1))
    windows = np.array([[1, 10], [100, 1000]]).reshape(1, 2, 2, 1)
    expected = [[0, 11, 0], [100, 1000, 0], [0, 0, 0]]
    assert gradient_of(pool, x, windows).reshape(3, 3).tolist() == expected
    assert gradient_of(GlobalMaxPool(), x, [[5]]).reshape(3, 3).tolist() == [[0, 5, 0], [0, 0, 0], [0, 0, 0]]


def test_padded_cells_take_no_gradient_from_a_map_of_zeros() -> None:
    x = np.zeros((1, 2, 2, 1), np.float32)
    pool = MaxPool2D(size=(2, 2), strides=(2, 2), padding=Padding(top=1, bottom=1, left=1, right=1))
    assert gradient_of(pool, x, np.full((1, 2, 2, 1), 3)).tolist() == np.full((1, 2, 2, 1), 3).tolist()


@pytest.mark.parametrize("function", [Function.RELU, Function.RELU6])
def test_nothing_passes_at_the_kinks_of_a_relu(function: Function) -> None:
    x = np.array([[-1, 0, 1, 6, 7]], np.float32)
    passes = [[0, 0, 1, float(function is Function.RELU), float(function is Function.RELU)]]
    assert gradient_of(Elementwise(function=function), x, np.ones((1, 5))).tolist() == passes
    fused = GraphBuilder((5,))
    graph = fused.graph(fused.add(Add(activation=Activation(function)), fused.image, fused.image))
    half: Any = x / 2
    tensors = execute_all(graph, half)
    # The image is both summands.
    assert (backward(graph, tensors, graph.output, np.ones_like(x))[INPUT_NAME] / 2).tolist() == passes


@pytest.mark.parametrize("function", list(Function))
def test_derivatives_at_extreme_values_are_finite(function: Function) -> None:
    x = np.array([[-1e30, -200, 0, 200, 1e30]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(gradient_of(Elementwise(function=function), x, np.ones((1, 5)))).all()


def test_gradients_are_let_go_after_their_use() -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    tensors = execute_all(graph, images(graph))
    running = backward_nodes(graph, tensors, graph.output, cotangent_of(graph, 2))
    # The shortcut and the branch wait for each other.
    most = 0
    for _ in running:
        assert running.gi_frame is not None  # type: ignore[attr-defined]
        most = max(most, len(running.gi_frame.f_locals["gradients"]))  # type: ignore[attr-defined]
    assert 1 <= most <= 2


def test_neither_tensors_nor_cotangent_are_written_to() -> None:
    graph = OPERATOR_GRAPHS["add_itself"]
    tensors, cotangent = execute_all(graph, images(graph)), cotangent_of(graph, 2)
    for array in (*tensors.values(), cotangent):
        array.flags.writeable = False
    backward(graph, tensors, graph.output, cotangent)


def test_a_cotangent_of_another_shape_is_refused() -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    tensors = execute_all(graph, images(graph))
    with pytest.raises(ValueError, match=r"takes a cotangent \(2, 5\), got \(2, 4\)"):
        backward(graph, tensors, graph.output, np.ones((2, 4), np.float32))


def test_an_unknown_operator_is_an_error() -> None:
    class Foreign(Operator):
        def infer(self, inputs: Any) -> Any:
            return inputs[0]

    b = GraphBuilder((2, 2, 1))
    graph = b.graph(b.add(Foreign(), b.image))
    tensors = {name: np.ones((1, 2, 2, 1), np.float32) for name in graph.shapes}
    with pytest.raises(NotImplementedError, match="no derivative of Foreign"):
        backward(graph, tensors, graph.output, tensors[graph.output])
