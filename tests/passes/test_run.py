"""All passes together: whatever the graph, they change its form and not what it computes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    Pad,
    Reshape,
)
from resnet_edge.passes import run_passes
from tests.graph_builder import GraphBuilder
from tests.graphs import OPERATOR_GRAPHS, residual_graphs
from tests.passes.comparison import changed, difference, holds_affine, kinds, reasons

if TYPE_CHECKING:
    from resnet_edge.graph import Graph

# The same examples in every run, and nothing kept on disk. One takes about 5 ms.
examples = settings(max_examples=200, derandomize=True, deadline=None, database=None)

# Folding rounds every weight once more (6e-8) and reorders sums. A batch norm whose variance is nothing
# beside its epsilon then multiplies what rounding left by up to 1 / sqrt(1e-5) = 300, in up to three blocks.
# Among 1,000 examples 1.6e-5 was the worst; 1e-4 is what export allows between Keras and any format.
TOLERANCE = 1e-4


@examples
@given(residual_graphs())
def test_folded_equals_unfolded(graph: Graph) -> None:
    folded = run_passes(graph).graph
    assert not holds_affine(folded)
    assert difference(graph, folded) <= TOLERANCE


@examples
@given(residual_graphs())
def test_batch_norms_stay_without_folding(graph: Graph) -> None:
    result = run_passes(graph, fold=False)
    assert difference(graph, result.graph) <= TOLERANCE
    assert "Affine" not in kinds(result.graph).values()
    norms = {node.name for node in graph.nodes if isinstance(node.op, BatchNorm)}
    assert norms == {node.name for node in result.graph.nodes if isinstance(node.op, BatchNorm)}
    assert result.report("fold_batchnorm") is None


@examples
@given(residual_graphs())
def test_every_batch_norm_is_folded_or_kept_once(graph: Graph) -> None:
    result = run_passes(graph)
    report = result.report("fold_batchnorm")
    assert report is not None
    counted = [change.node for change in report.changes if change.kind == "BatchNorm"]
    counted += [kept.node for kept in report.kept if kept.kind == "BatchNorm"]
    norms = [node.name for node in graph.nodes if isinstance(node.op, BatchNorm)]
    assert sorted(counted) == sorted(norms)
    left = kinds(result.graph)
    for kept in report.kept:
        assert kept.reason
        assert left[kept.node] == "DepthwiseConv2D"
    for change in report.changes:
        assert change.max_abs_error is not None
        assert change.node not in left


@examples
@given(residual_graphs())
def test_second_run_finds_nothing_to_do(graph: Graph) -> None:
    once = run_passes(graph).graph
    twice = run_passes(once)
    assert kinds(twice.graph) == kinds(once)
    assert not any(report.changes for report in twice.reports)


@examples
@given(residual_graphs())
def test_names_and_sources_stay(graph: Graph) -> None:
    result = run_passes(graph).graph
    for node in result.nodes:
        if node.name in graph.by_name:
            assert node.source == graph.by_name[node.name].source
        else:
            # A vector's affine is brought into the form of a map and back.
            assert re.fullmatch(r".*/(map|vector)", node.name)


@examples
@given(residual_graphs())
def test_activations_are_fused_where_possible(graph: Graph) -> None:
    result = run_passes(graph).graph
    for node in result.nodes:
        if isinstance(node.op, Elementwise) and node.op.function in (Function.RELU, Function.RELU6):
            producer = result.by_name[node.inputs[0]]
            if isinstance(producer.op, Conv2D | DepthwiseConv2D | Dense | Add):
                taken = producer.op.activation is not Activation.NONE
                assert taken or len(result.consumers[producer.name]) > 1


@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_every_operator_passes_unchanged(name: str) -> None:
    graph = OPERATOR_GRAPHS[name]
    # At most one batch norm is folded here: only the order of sums changes.
    assert difference(graph, run_passes(graph).graph) <= 1e-6


def test_given_graph_is_not_touched() -> None:
    graph = OPERATOR_GRAPHS["batch_norm"]
    weights = {node.name: dict(node.op.weights()) for node in graph.nodes}
    copies = {name: {role: w.copy() for role, w in roles.items()} for name, roles in weights.items()}
    run_passes(graph)
    for node in graph.nodes:
        for role, values in node.op.weights().items():
            assert values is weights[node.name][role]
            assert (values == copies[node.name][role]).all()


def test_counts_of_a_pre_activation_network() -> None:
    """As in ResNet-v2: in each block the first batch norm stays, the two inside the block fold."""
    builder = GraphBuilder((8, 8, 3))
    x = builder.conv(builder.image, 4, name="stem")
    for block in range(3):
        active = builder.function(builder.batch_norm(x, name=f"{block}/preact"), name=f"{block}/relu")
        y = active
        for layer in (1, 2):
            y = builder.function(builder.batch_norm(builder.conv(y, 4), name=f"{block}/norm{layer}"))
        shortcut = builder.conv(active, 4, (1, 1)) if block == 0 else x
        x = builder.add(Add(), shortcut, builder.conv(y, 4), name=f"{block}/add")
    graph = builder.classified(builder.function(builder.batch_norm(x, name="post"), name="relu"))
    result = run_passes(graph)
    report = result.report("fold_batchnorm")
    assert report is not None
    # The stem feeds nothing but the first block's batch norm, which therefore goes back into it.
    assert changed(report).keys() == {"0/preact", *(f"{b}/norm{n}" for b in range(3) for n in (1, 2))}
    assert reasons(report) == {
        "1/preact": "follows Add '0/add'; its relu '1/relu' keeps it from the next convolution",
        "2/preact": "follows Add '1/add'; its relu '2/relu' keeps it from the next convolution",
        "post": "follows Add '2/add'; its relu 'relu' keeps it from the next convolution",
    }
    left = {node.name: node.op for node in result.graph.nodes if isinstance(node.op, DepthwiseConv2D)}
    assert left.keys() == {"1/preact", "2/preact", "post"}
    assert {op.activation for op in left.values()} == {Activation.RELU}
    assert "Elementwise" not in kinds(result.graph).values()
    assert difference(graph, result.graph) <= TOLERANCE


def test_form_that_integer_formats_need() -> None:
    """No Pad beside a convolution, ReLU fused, the pool over the whole map global: all at once."""
    builder = GraphBuilder((8, 8, 3))
    padded = builder.add(Pad(padding=Padding(top=1, bottom=1)), builder.image)
    x = builder.batch_norm(builder.conv(padded, 4, padding=Padding(), name="conv"))
    pooled = builder.add(AveragePool2D(size=(8, 6), strides=(8, 6)), builder.function(x), name="pool")
    vector = builder.batch_norm(builder.add(Reshape(shape=(4,)), pooled))
    graph = builder.graph(builder.function(builder.dense(vector, name="dense"), Function.SOFTMAX, name="end"))
    folded = run_passes(graph).graph
    assert kinds(folded) == {
        "image": "Input",
        "conv": "Conv2D",
        "pool": "GlobalAveragePool",
        "dense": "Dense",
        "end": "Elementwise",
    }
    assert difference(graph, folded) <= TOLERANCE
