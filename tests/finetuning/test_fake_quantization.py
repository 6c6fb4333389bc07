"""The fake-quantized model computes what the exact integer reference computes, before and after training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from resnet_edge.errors import ModelRejectedError
from resnet_edge.finetuning.bridge import with_weights
from resnet_edge.finetuning.frameworks import tf, tf_keras
from resnet_edge.finetuning.qat import FakeQuantized
from resnet_edge.graph.operators import AveragePool2D
from resnet_edge.passes import run_passes
from resnet_edge.quantization.integer import run_integer
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from tests.graphs import OPERATOR_GRAPHS, images
from tests.minmax import minmax

IMAGES = 48

WITHIN_A_STEP = 1e-3
"""Of a step: float32 sums of dequantized products against exact integers, where neither is rounded to another
integer."""


def quantized(name, recipe="int8"):
    graph = run_passes(OPERATOR_GRAPHS[name]).graph
    return quantize_graph(graph, RECIPES[recipe], minmax(graph, images(graph, IMAGES)))


CONVOLUTIONS = ["conv_groups2", "conv_asymmetric_padding", "conv_relu6", "depthwise_multiplier2"]
"""Of all the convolutions: their paddings, strides and kernels are the bridge's matter."""


def integer_graphs():
    tier1 = [
        name for name, graph in OPERATOR_GRAPHS.items() if all(node.op.tier == 1 for node in graph.nodes)
    ]
    return [name for name in tier1 if name in CONVOLUTIONS or not name.startswith(("conv_", "depthwise_"))]


def distance(start, model):
    """The largest difference from the integer reference, in steps of the output."""
    inputs = images(start.graph, IMAGES)
    outputs, expected = model(inputs, training=False).numpy(), run_integer(start, inputs)
    return np.abs(outputs - expected).max() / start.spec.tensors[start.graph.output].scale


PER_TENSOR = ["conv_groups2", "depthwise_multiplier2", "dense_relu_dense_relu6", "residual_block"]


@pytest.mark.parametrize(
    ("name", "recipe"),
    [(name, "int8") for name in integer_graphs()] + [(name, "int8-per-tensor") for name in PER_TENSOR],
)
def test_starts_as_the_integers_that_calibration_chose(name, recipe):
    start = quantized(name, recipe)
    assert distance(start, FakeQuantized.of(start).model) < WITHIN_A_STEP


@pytest.mark.parametrize(
    "name", ["residual_block", "squeeze_and_excitation", "depthwise_multiplier2", "concat_three"]
)
def test_an_untrained_model_comes_back_as_it_was(name):
    start = quantized(name)
    back = FakeQuantized.of(start).result()
    assert back.spec.tensors == start.spec.tensors
    for key, integers in start.constants.items():
        np.testing.assert_array_equal(back.constants[key], integers)
        # One float32 rounding more or less on the way to a scale.
        np.testing.assert_allclose(
            back.spec.constants[key].scales, start.spec.constants[key].scales, rtol=3e-7, atol=0
        )


def trained(start, *, keep_zeros=False, steps=10, rate=0.04):
    """A few strong steps towards random outputs: every weight and scale moves."""
    trainable = FakeQuantized.of(start, keep_zeros=keep_zeros)
    inputs = images(start.graph, IMAGES)
    target = np.random.default_rng(1).normal(size=(IMAGES, start.graph.classes)).astype(np.float32)
    optimizer = tf_keras.optimizers.Adam(rate)
    variables = trainable.model.trainable_variables
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((trainable.model(inputs, training=True) - target) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    return trainable


@pytest.mark.parametrize("recipe", ["int8", "int8-per-tensor"])
@pytest.mark.parametrize(
    "name",
    [
        "residual_block",
        "residual_block_option_a",
        "depthwise_3x3_same",
        "concat_three",
        "dense_relu_dense_relu6",
    ],
)
def test_what_was_trained_is_what_is_exported(name, recipe):
    start = quantized(name, recipe)
    trainable = trained(start)
    back = trainable.result()
    inputs = images(start.graph, IMAGES)
    outputs, expected = trainable.model(inputs, training=False).numpy(), run_integer(back, inputs)
    steps = np.abs(outputs - expected) / back.spec.tensors[back.graph.output].scale
    # A sum that float32 puts on the other side of a half moves one integer by one step, seldom.
    assert steps.max() < 2
    assert (steps > 0.5).mean() < 0.02
    changed = [
        key for key in start.constants if not np.array_equal(start.constants[key], back.constants[key])
    ]
    assert changed
    assert back.spec.tensors != start.spec.tensors


def test_zero_points_and_shared_scales_survive_training():
    back = trained(quantized("concat_three")).result()
    joined = back.spec.tensors["concat_4"]
    node = back.graph.by_name["concat_4"]
    assert {back.spec.tensors[name].scale for name in node.inputs} == {joined.scale}
    start = quantized("concat_three")
    assert {name: quant.zero_point for name, quant in back.spec.tensors.items()} == {
        name: quant.zero_point for name, quant in start.spec.tensors.items()
    }


def test_the_image_and_prescribed_scales_are_not_learned():
    start = quantized("squeeze_and_excitation")
    back = trained(start).result()
    gate = next(name for name in start.spec.tensors if start.spec.tensors[name].observed is None)
    assert back.spec.tensors["image"] == start.spec.tensors["image"]
    assert back.spec.tensors[gate] == start.spec.tensors[gate]


def test_zeros_stay_zeros_on_request():
    start = quantized("residual_block")
    graph = start.graph
    stem = graph.by_name["stem"].op.weights()["weight"]
    rng = np.random.default_rng(0)
    mask = (rng.random(stem.shape) < 0.5).astype(np.float32)
    pruned = with_weights(graph, {"stem": (stem * mask, graph.by_name["stem"].op.weights()["bias"])})
    start = quantize_graph(pruned, RECIPES["int8"], minmax(pruned, images(pruned, IMAGES)))
    kept = trained(start, keep_zeros=True).result()
    assert not kept.constants["stem/weight"][mask == 0].any()
    assert trained(start).result().constants["stem/weight"][mask == 0].any()


def test_nodes_kept_in_float_stay_so():
    graph = run_passes(OPERATOR_GRAPHS["residual_block"]).graph
    start = quantize_graph(
        graph,
        RECIPES["int8"],
        minmax(graph, images(graph, IMAGES)),
        overrides=["stage1/block.0/conv-1=float"],
    )
    trainable = FakeQuantized.of(start)
    assert distance(start, trainable.model) < WITHIN_A_STEP
    assert "stage1/block.0/conv-1/weight" not in trainable.result().constants


def test_halves_of_an_average_are_rounded_as_stored_integers_are():
    start = quantized("average_pool_2x2")
    pool = next(node.name for node in start.graph.nodes if isinstance(node.op, AveragePool2D))
    odd = replace(start.spec.tensors[pool], zero_point=start.spec.tensors[pool].zero_point | 1)
    group = [name for name, quant in start.spec.tensors.items() if quant.scale == odd.scale]
    tensors = dict(start.spec.tensors) | {name: replace(odd, zero_point=odd.zero_point) for name in group}
    start = replace(start, spec=replace(start.spec, tensors=tensors))
    assert distance(start, FakeQuantized.of(start).model) < WITHIN_A_STEP


def test_an_operator_kept_float_that_cannot_be_trained_through_is_named():
    graph = run_passes(OPERATOR_GRAPHS["swish_of_map"]).graph
    culprit = next(node.name for node in graph.nodes if node.op.tier > 1)
    start = quantize_graph(
        graph, RECIPES["int8"], minmax(graph, images(graph, 8)), overrides=[f"{culprit}=float"]
    )
    with pytest.raises(ModelRejectedError, match="cannot be fine-tuned") as caught:
        FakeQuantized.of(start)
    assert culprit in caught.value.where
