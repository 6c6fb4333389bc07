from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    Concat,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool2D,
    Multiply,
    Operator,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.passes.fuse_activation import fuse_activation
from tests.graph_builder import GraphBuilder
from tests.passes.comparison import changed, difference, reasons

if TYPE_CHECKING:
    from collections.abc import Callable


def _conv(builder: GraphBuilder) -> str:
    return builder.conv(builder.image, 4, name="producer")


def _depthwise(builder: GraphBuilder) -> str:
    return builder.depthwise(builder.image, name="producer")


def _dense(builder: GraphBuilder) -> str:
    return builder.dense(builder.add(GlobalAveragePool(), builder.image), name="producer")


def _add(builder: GraphBuilder) -> str:
    return builder.add(Add(), builder.image, builder.image, name="producer")


@pytest.mark.parametrize("produce", [_conv, _depthwise, _dense, _add])
@pytest.mark.parametrize("function", [Function.RELU, Function.RELU6])
def test_fused(produce: Callable[[GraphBuilder], str], function: Function) -> None:
    builder = GraphBuilder((6, 5, 3))
    graph = builder.classified(builder.function(produce(builder), function, name="relu"))
    after, report = fuse_activation(graph)
    assert changed(report) == {"relu": ("fused", ("producer",))}
    assert after.by_name["producer"].op.activation == function.value  # type: ignore[attr-defined]
    assert "relu" not in after.by_name
    assert difference(graph, after) == 0


@pytest.mark.parametrize(
    "between",
    [
        Reshape(shape=(5, 6, 4)),
        Slice(begin=(1, 0, 0), end=(6, 5, 4), strides=(2, 1, 3)),
        Pad(padding=Padding(left=2), channels=(1, 0)),
        MaxPool2D(size=(3, 3), strides=(2, 2), padding=Padding(top=1, right=1)),
        GlobalMaxPool(),
    ],
)
def test_fused_through_what_only_moves_values(between: Operator) -> None:
    builder = GraphBuilder((6, 5, 3))
    moved = builder.add(between, _conv(builder))
    graph = builder.classified(builder.function(moved, name="relu"))
    after, report = fuse_activation(graph)
    assert changed(report) == {"relu": ("fused", ("producer",))}
    assert difference(graph, after) == 0


def test_relu_at_the_end() -> None:
    builder = GraphBuilder((6, 5, 3))
    graph = builder.graph(builder.function(_dense(builder), name="relu"))
    after, _ = fuse_activation(graph)
    assert after.output == "producer"
    assert difference(graph, after) == 0


def _two_consumers(builder: GraphBuilder) -> str:
    conv = _conv(builder)
    return builder.add(Concat(), builder.function(conv, name="relu"), builder.add(Pad(), conv, name="other"))


def _two_consumers_of_what_lies_between(builder: GraphBuilder) -> str:
    pool = builder.add(MaxPool2D(size=(2, 2), strides=(2, 2)), _conv(builder), name="pool")
    return builder.add(Concat(), builder.function(pool, name="relu"), pool, name="concat")


def _image(builder: GraphBuilder) -> str:
    return builder.function(builder.image, name="relu")


def _product(builder: GraphBuilder) -> str:
    return builder.function(
        builder.add(Multiply(), builder.image, builder.image, name="product"), name="relu"
    )


def _mean(builder: GraphBuilder) -> str:
    return builder.function(builder.add(GlobalAveragePool(), _conv(builder), name="mean"), name="relu")


def _clipped(builder: GraphBuilder) -> str:
    conv = builder.conv(builder.image, 4, activation=Activation.RELU, name="producer")
    return builder.function(conv, Function.RELU6, name="relu")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_two_consumers, "Conv2D 'producer' also feeds 'other'"),
        (_two_consumers_of_what_lies_between, "MaxPool2D 'pool' also feeds 'concat'"),
        (_image, "follows Input 'image'"),
        (_product, "follows Multiply 'product'"),
        (_mean, "follows GlobalAveragePool 'mean'"),
        (_clipped, "Conv2D 'producer' applies relu already"),
    ],
)
def test_reasons(build: Callable[[GraphBuilder], str], reason: str) -> None:
    builder = GraphBuilder((6, 5, 3))
    graph = builder.classified(build(builder))
    after, report = fuse_activation(graph)
    assert reasons(report) == {"relu": reason}
    assert not report.changes
    assert difference(graph, after) == 0


@pytest.mark.parametrize("function", [Function.SIGMOID, Function.SWISH, Function.SOFTMAX])
def test_other_functions_are_no_business_of_this_pass(function: Function) -> None:
    builder = GraphBuilder((6, 5, 3))
    graph = builder.classified(builder.function(_conv(builder), function, name="gate"))
    after, report = fuse_activation(graph)
    assert not report.changes
    assert not report.kept
    assert "gate" in after.by_name
