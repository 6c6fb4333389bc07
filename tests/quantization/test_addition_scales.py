"""Additions get one scale where that makes less noise, and add integers exactly then."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_edge.graph.operators import Activation, Add, Concat, Function
from resnet_edge.passes import run_passes
from resnet_edge.quantization.addition_scales import MOST_COARSER, align_additions
from resnet_edge.quantization.groups import integer_nodes, keeps_scale, shared_scales
from resnet_edge.quantization.integer import run_operator
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.quantization.requantization import Kernels
from resnet_edge.quantization.scales import ScaleGroup
from tests.graph_builder import GraphBuilder
from tests.quantization.calibrated import stated
from tests.residual_graphs import residual_graphs

RELU = Activation.RELU


def two_blocks():
    b = GraphBuilder((10, 10, 3))
    x = b.conv(b.image, 4, activation=RELU, name="stem")
    for name in ("first", "second"):
        x = b.add(Add(activation=RELU), x, b.conv(x, 4, name=f"{name}_branch"), name=name)
    return b.classified(x)


def float32(x):
    return float(np.float32(x))


def aligned(graph, scales, fixed=()):
    """The scales by tensor after alignment; 1.0 each unless given."""
    integer, _ = integer_nodes(graph, {})
    shared = shared_scales(graph, integer)
    groups = {
        name: ScaleGroup(low=-1.0, high=1.0, scale=float32(scales.get(name, 1.0)), fixed=name in fixed)
        for name in set(shared.values())
    }
    group_of = {name: groups[representative] for name, representative in shared.items()}
    align_additions(graph, integer, group_of)
    return {name: group.scale for name, group in group_of.items()}


APART = {"second_branch": 0.01, "second": 0.1}
"""Keeps the second addition out of it."""


def test_similar_scales_become_the_coarsest():
    found = aligned(two_blocks(), {"stem": 1.0, "first_branch": 1.1, "first": 1.05, **APART})
    # 1.0 + 1.21 + 1.1 against 2 * 1.21.
    assert [found[name] for name in ("stem", "first_branch", "first")] == [float32(1.1)] * 3
    assert (found["second_branch"], found["image"]) == (float32(0.01), 1.0)


def test_scales_far_apart_are_left_alone():
    scales = {"stem": float32(1.0), "first_branch": float32(1.31), "first": float32(1.3), **APART}
    found = aligned(two_blocks(), scales)
    assert {name: found[name] for name in scales} == {name: float32(scale) for name, scale in scales.items()}


def test_many_tensors_do_not_get_coarser_for_one_addition():
    b = GraphBuilder((10, 10, 3))
    joined = b.add(Concat(), *(b.conv(b.image, 1, name=f"part{i}") for i in range(5)), name="joined")
    graph = b.classified(b.add(Add(), joined, b.conv(b.image, 5, name="branch"), name="sum"))
    # 5 * 1.0 + 1.56 + 1.0 against 6 * 1.56.
    assert aligned(graph, {"branch": 1.25})["joined"] == 1.0


def test_chains_of_additions_share_one_scale():
    scales = {"stem": 0.98, "first_branch": 0.99, "first": 1.0, "second_branch": 1.01, "second": 1.02}
    found = aligned(two_blocks(), scales)
    assert {found[name] for name in scales} == {float32(1.02)}


def test_no_scale_grows_step_by_step_either():
    scales = {"stem": 1.0, "first_branch": 1.1, "first": 1.2, "second_branch": 1.5, "second": 1.5}
    found = aligned(two_blocks(), scales)
    assert found["stem"] <= MOST_COARSER
    assert len({found[name] for name in ("first", "second_branch", "second")}) < len(
        {found[name] for name in scales}
    )


def test_prescribed_scales_stay():
    b = GraphBuilder((10, 10, 3))
    gate = b.function(b.conv(b.image, 4, name="before"), Function.SIGMOID, name="gate")
    graph = b.classified(b.add(Add(), gate, b.conv(b.image, 4, name="branch"), name="sum"))
    coarser = {"gate": 1.0, "branch": 1.1, "sum": 1.1}
    found = aligned(graph, coarser, fixed=("gate",))
    assert (found["gate"], found["branch"], found["sum"]) == (1.0, float32(1.1), float32(1.1))
    found = aligned(graph, {"gate": 1.0, "branch": 0.95, "sum": 0.9}, fixed=("gate",))
    assert (found["gate"], found["branch"], found["sum"]) == (1.0, 1.0, 1.0)


def test_pixels_keep_their_scale():
    b = GraphBuilder((10, 10, 3))
    branch = b.conv(b.image, 3, name="branch")
    graph = b.classified(b.add(Add(activation=RELU), b.image, branch, name="sum"))
    statistics = stated(graph, {"branch": (-200, 80), "sum": (0, 280)})
    quantized = quantize_graph(graph, RECIPES["int8"], statistics, io="uint8", input_range=(0, 255))
    assert quantized.spec.tensors["image"].scale == 1.0


def test_groups_move_as_one():
    b = GraphBuilder((10, 10, 3))
    left, right = b.conv(b.image, 2, name="left"), b.conv(b.image, 2, name="right")
    joined = b.add(Concat(), left, right, name="joined")
    graph = b.classified(b.add(Add(), joined, b.conv(b.image, 4, name="branch"), name="sum"))
    found = aligned(graph, {"left": 1.0, "branch": 1.1, "sum": 1.1})
    assert {found[name] for name in ("left", "right", "joined", "branch", "sum")} == {float32(1.1)}


def noise(graph, scales):
    """Of rounding; an addition among tensors of its own scale rounds nothing."""
    return sum(
        scales[node.name] ** 2
        for node in graph.nodes
        if not keeps_scale(node.op)
        and not (isinstance(node.op, Add) and len({scales[name] for name in (node.name, *node.inputs)}) == 1)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=residual_graphs(), seed=st.integers(0, 2**16))
def test_noise_never_grows_and_scales_never_shrink(graph, seed):
    graph = run_passes(graph).graph
    rng = np.random.default_rng(seed)
    integer, _ = integer_nodes(graph, {})
    shared = shared_scales(graph, integer)
    # Powers of two differ enough to be left alone, and often enough not at all.
    drawn = {name: float32(2.0 ** rng.integers(-2, 1) * rng.uniform(0.9, 1.1)) for name in shared}
    before = {name: drawn[representative] for name, representative in shared.items()}
    after = aligned(graph, drawn)
    assert all(before[name] <= after[name] <= MOST_COARSER * before[name] for name in before)
    # Rounding of sums in another order.
    assert noise(graph, after) <= noise(graph, before) * (1 + 1e-9)


def test_aligned_additions_are_exact():
    graph = two_blocks()
    ranges = {"stem": (0, 9.0), "first_branch": (-4.0, 5.0), "first": (0, 9.5)}
    quantized = quantize_graph(graph, RECIPES["int8"], stated(graph, ranges))
    node = graph.by_name["first"]
    stem, branch, total = (quantized.spec.tensors[name] for name in (*node.inputs, "first"))
    assert stem.scale == branch.scale == total.scale == pytest.approx(9.5 / 255)
    a, b = np.meshgrid(np.arange(stem.qmin, 128), np.arange(-128, 128))
    wanted = np.clip(a - stem.zero_point + b - branch.zero_point + total.zero_point, total.qmin, total.qmax)
    integers = [each.astype(np.int8)[None, :, :, None] for each in (a, b)]
    for kernels in get_args(Kernels):
        found = run_operator(quantized, node, integers, kernels=kernels)
        assert np.array_equal(found[0, :, :, 0], wanted), kernels
