"""Channels get about the same range where a factor can pass, and the network computes what it did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from resnet_edge.graph.execution import execute, execute_all
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Concat,
    Function,
    GlobalAveragePool,
    MaxPool2D,
    Multiply,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.passes import run_passes
from resnet_edge.quantization.activation_equalization import (
    MOST_FACTOR,
    channel_magnitudes,
    equalize_activations,
    shared_factors,
)
from tests.graph_builder import GraphBuilder, images
from tests.quantization.calibrated import weighted
from tests.residual_graphs import residual_graphs

RELU = Activation.RELU


def largest(graph, x):
    """Largest absolute value of every channel of every tensor."""
    return {
        name: np.abs(tensor).reshape(-1, tensor.shape[-1]).max(axis=0).astype(np.float64)
        for name, tensor in execute_all(graph, x).items()
    }


def spread(magnitudes):
    return magnitudes.max() / magnitudes.min()


def equalized(graph):
    x = images(graph, 4)
    result = equalize_activations(graph, largest(graph, x))
    before = execute(graph, x)
    # Float rounding of weights that grew or shrank up to eightfold.
    assert execute(result, x) == pytest.approx(before, rel=1e-4, abs=1e-5 * float(np.abs(before).max()))
    return largest(graph, x), largest(result, x)


def uneven(graph, name, factor=(0.2, 0.5, 1.0, 2.0)):
    """Give a layer's channels ranges of their own."""
    op = weighted(graph, name)
    factors = np.resize(np.array(factor, np.float32), op.bias.size)
    op.weight[:] *= factors if op.weight.ndim < 4 or op.weight.shape[3] > 1 else factors[:, None]
    op.bias[:] = np.abs(op.bias) * factors  # no channel is silent behind a ReLU


@pytest.mark.parametrize("between", ["nothing", "max pool", "average pool", "relu", "depthwise", "concat"])
def test_channels_of_a_chain_get_one_range(between):
    b = GraphBuilder((8, 8, 3))
    x = b.conv(b.image, 4, activation=RELU, name="uneven")
    match between:
        case "max pool":
            x = b.add(MaxPool2D(size=(2, 2), strides=(2, 2)), x)
        case "average pool":
            x = b.add(AveragePool2D(size=(2, 2), strides=(2, 2)), x)
        case "relu":
            x = b.function(x)
        case "depthwise":
            x = b.depthwise(x, multiplier=1)
        case "concat":
            x = b.add(Concat(), x, b.conv(b.image, 4))
    graph = b.classified(b.conv(x, 5))
    uneven(graph, "uneven")
    before, after = equalized(graph)
    assert spread(before["uneven"]) > 4
    # The factors were chosen on these very images.
    assert spread(after["uneven"]) == pytest.approx(1, rel=1e-4)


def test_a_residual_chain_shares_one_factor_a_channel():
    b = GraphBuilder((8, 8, 3))
    x = b.conv(b.image, 4, activation=RELU, name="stem")
    y = b.conv(x, 4, activation=RELU, name="inner")
    y = b.conv(y, 4, name="branch")
    x = b.add(Add(activation=RELU), x, y, name="sum")
    half = b.add(Slice(begin=(0, 0, 0), end=(8, 8, 4), strides=(2, 2, 1)), x)
    wide = b.add(Pad(channels=(1, 1)), half)
    z = b.conv(x, 6, strides=(2, 2), name="wider")
    graph = b.classified(b.add(Add(activation=RELU), wide, z, name="second"))
    for name in ("stem", "inner", "branch"):
        uneven(graph, name)
    numbers = shared_factors(graph)
    assert np.array_equal(numbers["stem"], numbers["branch"])
    assert np.array_equal(numbers["stem"], numbers["sum"])
    assert np.array_equal(numbers["sum"], numbers["second"][1:5])
    assert np.array_equal(numbers["wider"], numbers["second"])
    assert not np.intersect1d(numbers["inner"], numbers["stem"]).size
    before, after = equalized(graph)
    wanted = max(1.0, spread(before["inner"]) / MOST_FACTOR)
    assert spread(after["inner"]) == pytest.approx(wanted, rel=1e-4)
    for name in ("stem", "branch", "sum"):
        # Somewhere in the chain every channel is as large as its tensor, and none got a wider range.
        assert spread(after[name]) < spread(before[name])
        assert after[name].max() <= before[name].max() * (1 + 1e-5)


@pytest.mark.parametrize("obstacle", ["relu6", "fused relu6", "sigmoid", "product", "broadcast sum"])
def test_what_a_factor_does_not_pass_keeps_its_channels(obstacle):
    b = GraphBuilder((6, 6, 3))
    fused = Activation.RELU6 if obstacle == "fused relu6" else Activation.NONE
    x = b.conv(b.image, 4, activation=fused, name="first")
    match obstacle:
        case "relu6" | "sigmoid":
            x = b.function(x, Function(obstacle))
        case "product":
            x = b.add(Multiply(), x, b.conv(b.image, 4))
        case "broadcast sum":
            x = b.add(Add(), x, b.add(GlobalAveragePool(keepdims=True), x))
    graph = b.classified(x)
    uneven(graph, "first")
    assert not shared_factors(graph)["first"].any()
    equalized(graph)


def test_input_and_output_keep_their_channels():
    b = GraphBuilder((6, 6, 3))
    graph = b.graph(b.dense(b.add(GlobalAveragePool(), b.conv(b.image, 4))))
    numbers = shared_factors(graph)
    assert not numbers[graph.nodes[0].name].any()
    assert not numbers[graph.output].any()


def test_a_flattened_map_has_its_channels_one_after_the_other():
    b = GraphBuilder((2, 2, 3))
    x = b.conv(b.image, 4, activation=RELU, name="uneven")
    graph = b.graph(b.dense(b.add(Reshape(shape=(16,)), x, name="flat")))
    uneven(graph, "uneven")
    numbers = shared_factors(graph)
    assert np.array_equal(numbers["flat"], np.tile(numbers["uneven"], 4))
    _, after = equalized(graph)
    assert spread(after["uneven"]) == pytest.approx(1, rel=1e-4)


def test_silent_channels_stay_and_faint_ones_grow_so_far():
    b = GraphBuilder((6, 6, 3))
    graph = b.classified(b.conv(b.image, 4, activation=RELU, name="uneven"))
    uneven(graph, "uneven", (0.0, 0.001, 1.0, 1.0))
    before, after = equalized(graph)
    assert after["uneven"][0] == 0
    assert after["uneven"][1] == pytest.approx(MOST_FACTOR * before["uneven"][1], rel=1e-4)


def test_magnitudes_are_near_the_largest_values_of_the_images():
    b = GraphBuilder((6, 6, 3))
    graph = b.classified(b.conv(b.image, 4, name="conv"))
    x = images(graph, 20)
    magnitudes = channel_magnitudes(graph, [x[:16], x[16:]])
    wanted = largest(graph, x)
    for node in graph.nodes:
        # The power mean of 20 numbers is at least the largest over the 8th root of 20.
        assert (magnitudes[node.name] <= wanted[node.name] * (1 + 1e-5)).all()
        assert (magnitudes[node.name] >= wanted[node.name] / 20 ** (1 / 8) * (1 - 1e-5)).all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow]
)
@given(graph=residual_graphs())
def test_the_function_stays_the_same(graph):
    graph = run_passes(graph).graph
    x = images(graph)
    before = execute(graph, x)
    after = execute(equalize_activations(graph, largest(graph, x)), x)
    # Float rounding of weights that grew or shrank up to eightfold, through a dozen layers.
    assert after == pytest.approx(before, rel=1e-3, abs=1e-4 * max(1.0, float(np.abs(before).max())))
