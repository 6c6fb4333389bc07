"""Addends lose what a ReLU behind the addition cuts off, and the network does not notice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from resnet_edge.graph.execution import execute
from resnet_edge.graph.operators import Activation, Add, GlobalAveragePool
from resnet_edge.quantization.activation_equalization import channel_magnitudes
from resnet_edge.quantization.calibration import calibrate
from resnet_edge.quantization.integer import run_integer
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.quantization.rectified_sums import effective, rectified_addends
from tests.graph_builder import GraphBuilder, images
from tests.quantization.calibrated import weighted

RELU = Activation.RELU

NUMBERS = arrays(np.float32, 20, elements=st.floats(-100, 100, width=32))


def block(activation=RELU, *, offset=0.0):
    """A residual block whose branch is shifted by ``offset``."""
    b = GraphBuilder((8, 8, 3))
    stem = b.conv(b.image, 4, activation=RELU, name="stem")
    graph = b.classified(b.add(Add(activation=activation), stem, b.conv(stem, 4, name="branch"), name="sum"))
    weighted(graph, "branch").bias[:] += np.float32(offset)
    return graph


def relu(x):
    return np.maximum(x, 0)


@given(first=NUMBERS, second=NUMBERS)
def test_the_rectified_sum_is_the_same(first, second):
    kept, other = effective(first, second), effective(second, first)
    assert np.array_equal(relu(kept + second), relu(first + second))
    assert np.array_equal(relu(kept + other), relu(first + second))
    assert (kept >= first).all()
    assert (kept <= relu(first)).all()


@given(first=NUMBERS, second=NUMBERS, first_low=st.floats(-100, 0), second_low=st.floats(-100, 0))
def test_clipping_below_costs_no_more_than_what_it_takes_from_the_effective_values(
    first, second, first_low, second_low
):
    clipped = relu(np.maximum(first, first_low) + np.maximum(second, second_low))
    lost = relu(first_low - effective(first, second)) + relu(second_low - effective(second, first))
    # Sums of numbers up to 200 in float32.
    assert (np.abs(clipped - relu(first + second)) <= lost + 1e-4).all()


def test_addends_are_those_that_only_a_rectified_sum_takes():
    assert rectified_addends(block()) == {"branch": "stem"}
    assert rectified_addends(block(Activation.RELU6)) == {"branch": "stem"}
    assert rectified_addends(block(Activation.NONE)) == {}


def test_both_addends_of_a_projected_block():
    b = GraphBuilder((8, 8, 3))
    left, right = b.conv(b.image, 4, name="left"), b.conv(b.image, 4, name="right")
    graph = b.classified(b.add(Add(activation=RELU), left, right))
    assert rectified_addends(graph) == {"left": "right", "right": "left"}


def test_doubled_and_broadcast_addends_are_left_out():
    b = GraphBuilder((8, 8, 3))
    stem = b.conv(b.image, 4, name="stem")
    whole = b.add(GlobalAveragePool(keepdims=True), stem, name="whole")
    shifted = b.add(Add(activation=RELU), b.conv(stem, 4, name="branch"), whole)
    graph = b.classified(b.add(Add(activation=RELU), shifted, shifted))
    assert rectified_addends(graph) == {}


@pytest.mark.parametrize("observer", ["mse", "minmax", "moving-average", "percentile", "entropy"])
def test_ranges_leave_out_what_is_cut_off(observer):
    graph = block(offset=-20.0)
    batch = images(graph, 8)
    statistics = calibrate(graph, [batch], observer=observer)
    low, _ = statistics.ranges["branch"]
    most = statistics.observed["stem"][1]
    assert statistics.observed["branch"][0] < -20  # what there was
    # What counts; the histograms' bins are 1/256 wide.
    assert -most * (1 + 1 / 256) <= low


def test_magnitudes_leave_out_what_is_cut_off():
    graph = block(offset=-20.0)
    magnitudes = channel_magnitudes(graph, [images(graph, 8)])
    assert (magnitudes["branch"] <= magnitudes["stem"] + 1e-6).all()


def test_integers_come_closer_to_the_float_model():
    graph = block(offset=-4.0)
    batch = images(graph, 64)
    statistics = calibrate(graph, [batch], observer="minmax")
    whole = replace(
        statistics,
        ranges={
            **statistics.ranges,
            "branch": (statistics.observed["branch"][0], statistics.ranges["branch"][1]),
        },
    )
    expected = execute(graph, batch)
    kept, wide = (
        ((run_integer(quantize_graph(graph, RECIPES["int8"], each), batch) - expected) ** 2).sum()
        for each in (statistics, whole)
    )
    # The branch has about half the range, and is a part of the noise.
    assert kept < 0.8 * wide
