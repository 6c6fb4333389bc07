"""The NumPy execution against TensorFlow's own operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from resnet_edge.graph import Graph, windows
from resnet_edge.graph.execution import execute, execute_all, execute_nodes, execute_operator
from resnet_edge.graph.operators import (
    Elementwise,
    Function,
    GlobalAveragePool,
    Operator,
)
from tests.graph_builder import GraphBuilder, images
from tests.graphs import EXECUTABLE_GRAPHS, OPERATOR_GRAPHS
from tests.tensorflow_operators import tensorflow_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator


def _subclasses(kind: type[Operator]) -> Iterator[type[Operator]]:
    for subclass in kind.__subclasses__():
        yield from _subclasses(subclass) if subclass.__name__.startswith("_") else [subclass]


@pytest.mark.parametrize("name", EXECUTABLE_GRAPHS)
def test_equals_tensorflow(name: str) -> None:
    graph = EXECUTABLE_GRAPHS[name]
    batch = images(graph)
    tensors = tensorflow_tensors(graph, batch)
    ours = execute_all(graph, batch)
    assert ours.keys() == tensors.keys()
    for key, theirs in tensors.items():
        assert ours[key].dtype == np.float32
        assert ours[key].shape == (len(batch), *graph.shapes[key])
        # Both sum up to a few thousand float32 products of magnitude 1, each in its own order.
        np.testing.assert_allclose(ours[key], theirs.numpy(), rtol=1e-5, atol=1e-5, err_msg=key)


def test_graphs_cover_every_operator() -> None:
    covered = {type(node.op) for graph in EXECUTABLE_GRAPHS.values() for node in graph.nodes}
    assert covered == set(_subclasses(Operator))  # type: ignore[type-abstract]
    functions = {
        node.op.function
        for graph in EXECUTABLE_GRAPHS.values()
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
