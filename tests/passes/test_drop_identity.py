from __future__ import annotations

import numpy as np
import pytest

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    Affine,
    AveragePool2D,
    Concat,
    Function,
    MaxPool2D,
    Operator,
    Pad,
    Permute,
    Reshape,
    Slice,
    Upsample2D,
)
from resnet_edge.passes.drop_identity import drop_identity
from tests.graph_builder import GraphBuilder
from tests.passes.comparison import changed, difference, kinds

SHAPE = (6, 5, 4)


@pytest.mark.parametrize(
    "op",
    [
        Reshape(shape=SHAPE),
        Pad(),
        Slice(begin=(0, 0, 0), end=SHAPE),
        Permute(order=(0, 1, 2)),
        Upsample2D(size=(1, 1)),
        Concat(),
        MaxPool2D(size=(1, 1), strides=(1, 1)),
        AveragePool2D(size=(1, 1), strides=(1, 1)),
        Affine(scale=np.ones(4, np.float32), offset=np.zeros(4, np.float32)),
    ],
)
def test_identities_go(op: Operator) -> None:
    builder = GraphBuilder(SHAPE)
    graph = builder.classified(builder.add(op, builder.image, name="nothing"))
    after, report = drop_identity(graph)
    assert changed(report) == {"nothing": ("removed", ())}
    assert list(kinds(after)) == ["image", "head", "flat"]
    assert difference(graph, after) == 0


@pytest.mark.parametrize(
    "op",
    [
        Reshape(shape=(5, 6, 4)),
        Pad(channels=(0, 1)),
        Pad(padding=Padding(right=1)),
        Slice(begin=(0, 0, 0), end=(6, 5, 3)),
        Permute(order=(1, 0, 2)),
        Upsample2D(size=(1, 2)),
        MaxPool2D(size=(1, 2), strides=(1, 1)),
        AveragePool2D(size=(1, 1), strides=(1, 1), padding=Padding(top=1)),
        Affine(scale=np.ones(4, np.float32), offset=np.eye(1, 4, dtype=np.float32)[0]),
        Affine(scale=1 + np.eye(1, 4, dtype=np.float32)[0], offset=np.zeros(4, np.float32)),
    ],
)
def test_near_identities_stay(op: Operator) -> None:
    builder = GraphBuilder(SHAPE)
    graph = builder.classified(builder.add(op, builder.image, name="something"))
    # A padded average pool of single pixels averages nothing at its border: not compared here.
    after, report = drop_identity(graph)
    assert not report.changes
    assert after.by_name["something"].op is op


@pytest.mark.parametrize("pool", [MaxPool2D, AveragePool2D])
def test_pool_of_single_pixels_is_a_slice(pool: type[MaxPool2D | AveragePool2D]) -> None:
    builder = GraphBuilder((7, 6, 4))
    x = builder.add(pool(size=(1, 1), strides=(2, 3)), builder.image, name="pool")
    graph = builder.classified(x)
    after, report = drop_identity(graph)
    assert changed(report) == {"pool": ("became a strided Slice", ())}
    op = after.by_name["pool"].op
    assert isinstance(op, Slice)
    assert op.strides == (2, 3, 1)
    assert difference(graph, after) == 0


@pytest.mark.parametrize(
    ("first", "second", "dropped"),
    [
        (Function.RELU, Function.RELU, True),
        (Function.RELU6, Function.RELU, True),
        (Function.RELU6, Function.RELU6, True),
        (Function.SIGMOID, Function.RELU, True),
        (Function.RELU, Function.RELU6, False),
        (Function.TANH, Function.RELU, False),
        (Function.SIGMOID, Function.SIGMOID, False),
    ],
)
def test_activations_of_activations(first: Function, second: Function, dropped: bool) -> None:
    builder = GraphBuilder(SHAPE)
    x = builder.function(builder.conv(builder.image, 4), first)
    graph = builder.classified(builder.function(x, second, name="second"))
    after, report = drop_identity(graph)
    assert ("second" in changed(report)) is dropped
    assert difference(graph, after) == 0


def test_relu_of_what_cannot_be_negative() -> None:
    builder = GraphBuilder(SHAPE)
    clipped = builder.conv(builder.image, 4, activation=Activation.RELU)
    pooled = builder.add(MaxPool2D(size=(2, 2), strides=(1, 1), padding=Padding(bottom=1, right=1)), clipped)
    total = builder.add(Add(), builder.add(Pad(channels=(1, 1)), pooled), builder.conv(builder.image, 6))
    known = builder.function(pooled, name="known")
    unknown = builder.function(total, name="unknown")
    graph = builder.classified(builder.add(Concat(), known, unknown))
    after, report = drop_identity(graph)
    assert changed(report) == {"known": ("removed", ())}
    assert difference(graph, after) == 0


def test_identity_at_the_end_and_what_nothing_needs() -> None:
    builder = GraphBuilder((1, 1, 3))
    dense = builder.dense(builder.add(Reshape(shape=(3,)), builder.image), name="dense")
    builder.function(dense, name="unused")
    graph = builder.graph(builder.add(Reshape(shape=(5,)), dense, name="end"))
    after, _ = drop_identity(graph)
    assert after.output == "dense"
    assert "unused" not in after.by_name
