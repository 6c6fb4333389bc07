from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    Function,
    MaxPool2D,
    Multiply,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.passes.absorb_padding import absorb_padding
from tests.graph_builder import GraphBuilder
from tests.passes.comparison import changed, difference, kinds, reasons

if TYPE_CHECKING:
    from collections.abc import Callable

ONE = Padding(top=1, bottom=1, left=1, right=1)
POOL = MaxPool2D(size=(3, 3), strides=(2, 2))


def test_convolutions_pad_by_themselves() -> None:
    builder = GraphBuilder((6, 5, 3))
    padded = builder.add(Pad(padding=Padding(top=1, right=2)), builder.image, name="pad")
    first = builder.conv(padded, 4, padding=Padding(), name="first")
    second = builder.depthwise(padded, padding=Padding(), name="second")
    graph = builder.classified(builder.add(Concat(), first, second))
    after, report = absorb_padding(graph)
    assert changed(report) == {"pad": ("absorbed", ("first", "second"))}
    assert "pad" not in after.by_name
    assert after.by_name["first"].op.padding == Padding(top=1, right=2)  # type: ignore[attr-defined]
    assert difference(graph, after) == 0


def test_padding_adds_up() -> None:
    builder = GraphBuilder((6, 5, 3))
    twice = builder.add(Pad(padding=Padding(bottom=2)), builder.add(Pad(padding=ONE), builder.image))
    graph = builder.classified(builder.conv(twice, 4, padding=Padding(left=1), name="conv"))
    after, _ = absorb_padding(graph)
    op = after.by_name["conv"].op
    assert isinstance(op, Conv2D)
    assert op.padding == Padding(top=1, bottom=3, left=2, right=1)
    assert "Pad" not in kinds(after).values()
    assert difference(graph, after) == 0


def test_pads_of_channels_and_maps_become_one() -> None:
    builder = GraphBuilder((6, 5, 3))
    first = builder.add(Pad(padding=ONE, channels=(1, 0)), builder.image, name="first")
    graph = builder.classified(builder.add(Pad(channels=(1, 2)), first, name="second"))
    after, report = absorb_padding(graph)
    op = after.by_name["second"].op
    assert isinstance(op, Pad)
    assert (op.padding, op.channels) == (ONE, (2, 2))
    assert reasons(report) == {"second": "pads channels, which only a node of its own can"}
    assert difference(graph, after) == 0


def _relu(builder: GraphBuilder) -> str:
    return builder.function(builder.image)


def _fused(builder: GraphBuilder) -> str:
    return builder.conv(builder.image, 3, activation=Activation.RELU6)


def _sigmoid(builder: GraphBuilder) -> str:
    return builder.function(builder.image, Function.SIGMOID)


def _far_from_relu(builder: GraphBuilder) -> str:
    clipped = builder.function(builder.image)
    pooled = builder.add(AveragePool2D(size=(2, 2), strides=(1, 1)), clipped)
    halved = builder.add(Slice(begin=(0, 0, 0), end=(5, 4, 3), strides=(1, 1, 2)), pooled)
    return builder.add(Concat(), builder.add(Add(), halved, halved), builder.add(Multiply(), halved, halved))


@pytest.mark.parametrize("source", [_relu, _fused, _sigmoid, _far_from_relu])
def test_max_pool_of_what_cannot_be_negative(source: Callable[[GraphBuilder], str]) -> None:
    builder = GraphBuilder((6, 5, 3))
    padded = builder.add(Pad(padding=ONE), source(builder), name="pad")
    graph = builder.classified(builder.add(POOL, padded, name="pool"))
    after, report = absorb_padding(graph)
    assert changed(report) == {"pad": ("absorbed", ("pool",))}
    assert difference(graph, after) == 0


def test_max_pool_of_what_may_be_negative() -> None:
    builder = GraphBuilder((6, 5, 3))
    # All below zero along the border: a pool that ignored its padding would give something else.
    conv = builder.conv(builder.image, 3)
    padded = builder.add(Pad(padding=ONE), conv, name="pad")
    graph = builder.classified(builder.add(POOL, padded, name="pool"))
    after, report = absorb_padding(graph)
    assert reasons(report) == {
        "pad": "MaxPool2D 'pool' may find values below zero, among which its zeros win"
    }
    assert difference(graph, after) == 0


def test_max_pool_with_windows_of_nothing_but_zeros() -> None:
    builder = GraphBuilder((6, 5, 3))
    padded = builder.add(Pad(padding=Padding(top=2)), builder.function(builder.image), name="pad")
    graph = builder.classified(builder.add(MaxPool2D(size=(2, 2), strides=(1, 1)), padded, name="pool"))
    after, report = absorb_padding(graph)
    assert reasons(report) == {"pad": "MaxPool2D 'pool' would have windows with nothing but padding"}
    assert difference(graph, after) == 0


def test_average_pool_counts_the_zeros() -> None:
    builder = GraphBuilder((6, 5, 3))
    padded = builder.add(Pad(padding=ONE), builder.image, name="pad")
    pool = AveragePool2D(size=(2, 2), strides=(1, 1))
    graph = builder.classified(builder.add(pool, padded, name="pool"))
    after, report = absorb_padding(graph)
    assert reasons(report) == {
        "pad": "AveragePool2D 'pool' counts the zeros, and would not count its own padding"
    }
    assert difference(graph, after) == 0


def test_one_consumer_that_cannot_keeps_the_pad_for_all() -> None:
    builder = GraphBuilder((6, 5, 3))
    padded = builder.add(Pad(padding=ONE), builder.image, name="pad")
    conv = builder.conv(padded, 3, name="conv")
    graph = builder.classified(builder.add(Add(), conv, padded, name="add"))
    after, report = absorb_padding(graph)
    assert reasons(report) == {"pad": "feeds Add 'add', which has no padding of its own"}
    assert after.by_name["conv"].op is graph.by_name["conv"].op


def test_pad_that_is_the_output_stays() -> None:
    builder = GraphBuilder((1, 1, 3))
    padded = builder.add(Pad(channels=(1, 1)), builder.image, name="pad")
    builder.add(Reshape(shape=(5,)), padded)
    graph = builder.graph(padded)
    _, report = absorb_padding(graph)
    assert reasons(report) == {"pad": "its result is the model's output"}
