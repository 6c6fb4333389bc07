from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from resnet_edge.graph.execution import execute
from resnet_edge.graph.operators import Activation, Add, AveragePool2D, Function, GlobalAveragePool, MaxPool2D
from resnet_edge.passes import run_passes
from resnet_edge.quantization.equalization import equalize
from tests.graph_builder import GraphBuilder, images
from tests.quantization.calibrated import weighted
from tests.residual_graphs import residual_graphs


def channel_ranges(graph, first, second):
    """Largest weights of each channel, as the first layer makes it and as the second takes it."""
    before, behind = weighted(graph, first).weight, weighted(graph, second).weight
    made = np.abs(before).reshape(-1, before.shape[-1] * (before.shape[-2] if "depthwise" in first else 1))
    axes = (0, 1, 3) if behind.ndim == 4 else (1,)
    return made.max(axis=0), np.abs(behind).max(axis=axes)


def unbalanced(between):
    """Two layers whose channels differ by up to a thousandfold, with something in between."""
    b = GraphBuilder((8, 8, 3))
    x = b.conv(b.image, 6, activation=Activation.RELU, name="first")
    match between:
        case "nothing":
            x = b.conv(x, 5, name="second")
        case "pool":
            x = b.add(MaxPool2D(size=(2, 2), strides=(2, 2)), x)
            x = b.conv(b.add(AveragePool2D(size=(2, 2), strides=(1, 1)), x), 5, name="second")
        case "relu":
            x = b.conv(b.function(x), 5, name="second")
        case "depthwise":
            x = b.depthwise(x, multiplier=1, name="second")
        case "dense":
            return b.graph(b.dense(b.add(GlobalAveragePool(), x), name="second"))
    return b.classified(x)


@pytest.mark.parametrize("between", ["nothing", "pool", "relu", "depthwise", "dense"])
def test_both_layers_get_the_same_range_in_every_channel(between):
    graph = unbalanced(between)
    spread = np.array([0.1, 1, 1, 1, 3, 10], np.float32)
    weighted(graph, "first").weight[:] *= spread
    equalized = equalize(graph)
    made, taken = channel_ranges(equalized, "first", "second")
    if between in ("depthwise", "nothing", "pool", "relu"):
        # The second layer is balanced with the head behind it as well: near, not exact.
        assert made == pytest.approx(taken, rel=1e-2)
    else:
        assert made == pytest.approx(taken, rel=1e-5)
    x = images(graph)
    assert execute(equalized, x) == pytest.approx(execute(graph, x), rel=1e-4, abs=1e-5)


def test_a_grouped_layer_takes_its_own_groups_channels():
    b = GraphBuilder((6, 6, 3))
    x = b.conv(b.image, 6, activation=Activation.RELU, name="first")
    graph = b.classified(b.conv(x, 4, groups=2, name="second"))
    weighted(graph, "first").weight[..., 4] *= 30
    inputs = images(graph)
    equalized = equalize(graph)
    assert execute(equalized, inputs) == pytest.approx(execute(graph, inputs), rel=1e-4, abs=1e-5)
    assert np.abs(weighted(equalized, "first").weight[..., 4]).max() < 10


@pytest.mark.parametrize("obstacle", ["relu6", "fused relu6", "sigmoid", "two consumers"])
def test_what_a_factor_does_not_pass_is_left_alone(obstacle):
    b = GraphBuilder((6, 6, 3))
    fused = Activation.RELU6 if obstacle == "fused relu6" else Activation.NONE
    x = b.conv(b.image, 4, activation=fused, name="first")
    if obstacle == "two consumers":
        y = b.conv(x, 4, name="second")
        x = b.add(Add(), x, y)
    elif obstacle != "fused relu6":
        x = b.function(x, Function(obstacle))
    graph = b.classified(x)
    assert np.array_equal(weighted(equalize(graph), "first").weight, weighted(graph, "first").weight)


def test_dead_channels_stay_as_they_are():
    graph = unbalanced("dense")
    weighted(graph, "first").weight[..., 2] = 0
    weighted(graph, "second").weight[3] = 0
    equalized = equalize(graph)
    assert not weighted(equalized, "first").weight[..., 2].any()
    assert np.array_equal(
        weighted(equalized, "first").weight[..., 3], weighted(graph, "first").weight[..., 3]
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow]
)
@given(graph=residual_graphs())
def test_the_function_stays_the_same(graph):
    graph = run_passes(graph).graph
    x = images(graph)
    before = execute(graph, x)
    # Float rounding of weights that grew or shrank up to 64 times, through a dozen layers.
    assert execute(equalize(graph), x) == pytest.approx(
        before, rel=1e-3, abs=1e-4 * max(1.0, float(np.abs(before).max()))
    )
