"""The graph's own checks, and the editor."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_edge.graph import Graph, GraphEditor, Node
from resnet_edge.graph.geometry import Padding, ShapeError
from resnet_edge.graph.operators import Add, Dense, Elementwise, Function, GlobalAveragePool, Input, Reshape
from tests.graph_builder import GraphBuilder
from tests.graphs import OPERATOR_GRAPHS

IMAGE = Node(name="image", op=Input(shape=(4, 4, 3)))
RELU = Elementwise(function=Function.RELU)


def test_first_node_must_be_the_image() -> None:
    with pytest.raises(ValueError, match="begins with one Input node"):
        Graph(name="g", nodes=(Node(name="a", op=RELU),), output="a")


def test_output_must_exist() -> None:
    with pytest.raises(ValueError, match="output 'b' is not a node"):
        Graph(name="g", nodes=(IMAGE,), output="b")


def test_names_must_differ_and_be_defined_in_order() -> None:
    twice = Node(name="a", op=RELU, inputs=("image",))
    with pytest.raises(ValueError, match="two nodes are named 'a'"):
        Graph(name="g", nodes=(IMAGE, twice, twice), output="a")
    with pytest.raises(ValueError, match="'a' uses 'b' before it is defined"):
        Graph(name="g", nodes=(IMAGE, Node(name="a", op=RELU, inputs=("b",))), output="a")


def test_shape_errors_name_the_layer() -> None:
    op = Dense(weight=np.zeros((2, 2), np.float32), bias=np.zeros(2, np.float32))
    with pytest.raises(ShapeError, match=r"model/dense: takes a vector of 2 features, got \(4, 4, 3\)"):
        Graph(
            name="g",
            nodes=(IMAGE, Node(name="d", op=op, inputs=("image",), source="model/dense")),
            output="d",
        )


def test_output_name_says_whether_it_holds_probabilities() -> None:
    assert OPERATOR_GRAPHS["residual_block"].output_name == "probabilities"
    assert OPERATOR_GRAPHS["conv_1x1"].output_name == "logits"
    assert OPERATOR_GRAPHS["conv_1x1"].tensor_name("flat") == "logits"
    assert OPERATOR_GRAPHS["conv_1x1"].tensor_name("head") == "head"


def test_counts() -> None:
    graph = OPERATOR_GRAPHS["conv_groups2"]
    # conv 3x3x2x6 + 6, head 8x8x6x5 + 5; every weight of the conv is used once an output pixel.
    assert graph.parameters == 108 + 6 + 1920 + 5
    assert graph.macs == 64 * 108 + 1920


def test_editor_leaves_the_old_graph_alone_and_drops_what_nothing_needs() -> None:
    builder = GraphBuilder((4, 4, 3))
    first = builder.function(builder.image, name="first")
    second = builder.function(first, name="second")
    side = builder.function(first, Function.TANH, name="side")
    graph = builder.graph(builder.add(Add(), second, side, name="sum"))
    editor = GraphEditor(graph)
    editor.redirect("side", "second")
    assert [node.name for node in editor.graph().nodes] == ["image", "first", "second", "sum"]
    assert editor.graph().by_name["sum"].inputs == ("second", "second")
    assert [node.name for node in graph.nodes] == ["image", "first", "second", "side", "sum"]


def test_editor_puts_added_nodes_in_order() -> None:
    builder = GraphBuilder((4, 4, 3))
    graph = builder.graph(builder.add(GlobalAveragePool(), builder.image, name="pool"))
    editor = GraphEditor(graph)
    editor.add(Node(name="relu", op=RELU, inputs=("image",)))
    editor.set_inputs("pool", ["relu"])
    editor.add(Node(name="flat", op=Reshape(shape=(3, 1)), inputs=("pool",)))
    editor.redirect("pool", "flat", keep=["flat"])
    edited = editor.graph()
    assert [node.name for node in edited.nodes] == ["image", "relu", "pool", "flat"]
    assert edited.output == "flat"
    editor.remove("flat")
    assert editor.graph().output == "pool"


def test_editor_avoids_used_and_reserved_names() -> None:
    editor = GraphEditor(OPERATOR_GRAPHS["residual_block"])
    assert editor.unused_name("pool") == "pool_2"
    assert editor.unused_name("logits") == "logits_2"
    assert editor.unused_name("new") == "new"
    with pytest.raises(ValueError, match="two nodes are named 'pool'"):
        editor.add(Node(name="pool", op=RELU, inputs=("image",)))


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [(8, 1, (1, 1)), (8, 2, (0, 1)), (9, 2, (1, 1)), (7, 3, (1, 1)), (8, 4, (0, 0))],
)
def test_same_puts_the_odd_row_last(size: int, stride: int, expected: tuple[int, int]) -> None:
    # TensorFlow's rule: ceil(size / stride) windows, the padding split with the larger half behind.
    padding = Padding.same((size, size), (3, 3), (stride, stride))
    assert (padding.top, padding.bottom) == (padding.left, padding.right) == expected
