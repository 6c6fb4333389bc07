from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.quantization.weights import dequantize_weight, matrix, natural_scales, quantize_weight
from tests.graph_builder import GraphBuilder
from tests.quantization.calibrated import observe, stated, weighted

if TYPE_CHECKING:
    from resnet_edge.quantization.weights import Linear

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


OPERATORS: dict[str, Linear] = {
    "conv": Conv2D(weight=normal(3, 3, 4, 6), bias=normal(6)),
    "grouped": Conv2D(weight=normal(3, 3, 2, 6), bias=normal(6), groups=2),
    "depthwise": DepthwiseConv2D(weight=normal(3, 3, 4, 2), bias=normal(8)),
    "dense": Dense(weight=normal(30, 7), bias=normal(7)),
}


@pytest.fixture(params=OPERATORS)
def op(request):
    return OPERATORS[request.param]


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_largest_weight_is_the_largest_integer(op, per_channel):
    scales = natural_scales(op, per_channel=per_channel, weight_range="max").astype(np.float32)
    integers = quantize_weight(op, scales)
    assert integers.shape == op.weight.shape
    assert scales.size == (op.bias.size if per_channel else 1)
    largest = np.abs(integers.reshape(-1, op.bias.size).astype(int)).max(axis=0)
    assert (largest == 127).all() if per_channel else largest.max() == 127
    # Half a step, and what float32 scales add at 127 steps.
    assert (np.abs(dequantize_weight(op, integers, scales) - matrix(op)) <= scales * (0.5 + 1e-4)).all()


def test_the_search_finds_no_larger_error_in_any_channel():
    # Of few weights each matters too much to be clipped; of thousands the largest does not.
    op = Dense(weight=normal(4000, 7), bias=normal(7))

    def error(weight_range):
        scales = natural_scales(op, per_channel=True, weight_range=weight_range).astype(np.float32)
        return ((dequantize_weight(op, quantize_weight(op, scales), scales) - matrix(op)) ** 2).sum(axis=0)

    searched, largest = error("mse"), error("max")
    # The search is in float64, the scales are float32.
    assert (searched <= largest * (1 + 1e-5)).all()
    assert searched.sum() < 0.98 * largest.sum()


def test_a_channel_of_a_depthwise_weight_is_input_channel_times_multiplier_plus_filter():
    op = OPERATORS["depthwise"]
    weight = op.weight.copy()
    weight[:, :, 2, 1] *= 100
    before, after = (
        natural_scales(DepthwiseConv2D(weight=w, bias=op.bias), per_channel=True, weight_range="max")
        for w in (op.weight, weight)
    )
    assert np.flatnonzero(before != after).tolist() == [2 * 2 + 1]


def test_constants_are_described_as_the_formats_need_them():
    b = GraphBuilder((6, 6, 3))
    graph = b.classified(b.depthwise(b.conv(b.image, 4, name="conv"), multiplier=2, name="depthwise"))
    quantized = quantize_graph(graph, RECIPES["int8"], observe(graph))
    described = {name: (c.dtype, c.axis, len(c.scales)) for name, c in quantized.spec.constants.items()}
    assert described == {
        "conv/weight": ("int8", 3, 4),
        "conv/bias": ("int32", 0, 4),
        "depthwise/weight": ("int8", 2, 8),
        "depthwise/bias": ("int32", 0, 8),
        "head/weight": ("int8", 3, 5),
        "head/bias": ("int32", 0, 5),
    }
    for name, constant in quantized.spec.constants.items():
        assert quantized.constants[name].dtype == constant.dtype
    wide = quantize_graph(graph, RECIPES["int16x8"], observe(graph))
    assert wide.constants["conv/bias"].dtype == wide.spec.constants["conv/bias"].dtype == "int64"
    assert wide.constants["conv/weight"].dtype == np.int8


def test_weights_for_float_arithmetic_have_no_tensors_and_no_biases():
    b = GraphBuilder((6, 6, 3))
    graph = b.classified(b.conv(b.image, 4, name="conv"))
    quantized = quantize_graph(graph, RECIPES["int8-weights"])
    assert not quantized.spec.tensors
    assert set(quantized.constants) == {"conv/weight", "head/weight"}
    assert quantized.spec.constants["conv/weight"].axis == 3


def test_float16_keeps_layers_whose_numbers_it_does_not_hold():
    b = GraphBuilder((6, 6, 3))
    x = b.image
    for name in ("large_weight", "middle", "large_output", "after", "last"):
        x = b.conv(x, 4, name=name)
    graph = b.classified(x)
    weighted(graph, "large_weight").weight[0, 0, 0, 0] = -70000
    without = quantize_graph(graph, RECIPES["fp16"]).spec
    assert without.kept_float == {"large_weight": "weight reaches 70000, float16 ends at 65504"}
    spec = quantize_graph(graph, RECIPES["fp16"], stated(graph, {"large_output": (-1e5, 3.0)})).spec
    # The layer behind takes the tensor that does not fit, too.
    assert set(spec.kept_float) == {"large_weight", "large_output", "after"}
    assert "tensor 'large_output' reaches 100000" in spec.kept_float["after"]
    assert set(spec.constants) == {f"{n}/{r}" for n in ("middle", "last", "head") for r in ("weight", "bias")}
    assert {constant.dtype for constant in spec.constants.values()} == {"float16"}
