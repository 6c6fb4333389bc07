"""Bias correction and rounding for the inputs that a layer gets, against the outputs they are to preserve."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from resnet_edge.graph.execution import execute_operator
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import Dense, Reshape
from resnet_edge.quantization.bias_correction import exact_shift, mean_shift
from resnet_edge.quantization.input_moments import InputMoments, covariance_bytes, measure
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.quantization.rounding import round_weight
from resnet_edge.quantization.weights import dequantize_weight, matrix, natural_scales, quantize_weight
from tests.graph_builder import GraphBuilder
from tests.quantization.calibrated import observe, weighted


def layer(kind):
    """A graph with one layer of interest, ``layer``, on correlated positive inputs."""
    b = GraphBuilder((9, 9, 4), seed=3)
    match kind:
        case "dense":
            b = GraphBuilder((1, 1, 48), seed=3)
            flat = b.add(Reshape(shape=(48,)), b.image)
            return b.graph(b.dense(flat, 20, name="layer"))
        case "depthwise":
            return b.graph(b.depthwise(b.image, multiplier=2, strides=(2, 2), name="layer"))
        case "grouped":
            return b.graph(b.conv(b.image, 6, groups=2, dilation=(2, 2), name="layer"))
        case "asymmetric":
            return b.graph(b.conv(b.image, 6, padding=Padding(bottom=2, right=1), name="layer"))
    return b.graph(b.conv(b.image, 6, strides=(2, 1), name="layer"))


KINDS = ["conv", "asymmetric", "grouped", "depthwise", "dense"]


def correlated_images(graph, count=64):
    """Positive, with all channels and neighbours alike, as behind a ReLU."""
    rng = np.random.default_rng(5)
    common = rng.uniform(0, 2, (count, 1, 1, 1))
    return (common + rng.uniform(0, 0.5, (count, *graph.input_shape))).astype(np.float32)


def output_error(op, weight, x):
    """What another weight (taps, channels) adds to the operator's output."""
    difference = (weight - matrix(op)).astype(np.float32).reshape(op.weight.shape)
    return execute_operator(dataclasses.replace(op, weight=difference, bias=np.zeros_like(op.bias)), x)


def prepared(kind):
    graph = layer(kind)
    op = weighted(graph, "layer")
    images = correlated_images(graph)
    scales = natural_scales(op, per_channel=False, weight_range="max").astype(np.float32)
    x = images.reshape(len(images), -1) if isinstance(op, Dense) else images
    return graph, op, images, x, scales


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_shift_is_that_of_the_outputs(kind):
    _, op, images, x, scales = prepared(kind)
    weight = dequantize_weight(op, quantize_weight(op, scales), scales)
    # One mean a channel says everything only if it is the same everywhere.
    flat = np.broadcast_to(images.mean(axis=(0, 1, 2)), images.shape).astype(np.float32)
    measured = output_error(op, weight, flat.reshape(x.shape))
    means = flat.reshape(x.shape).reshape(-1, x.shape[-1]).mean(axis=0)
    shift = mean_shift(op, weight - matrix(op), means, x.shape[1:])
    # Both are sums of float32 products near 0.01.
    assert shift == pytest.approx(measured.reshape(-1, op.bias.size).mean(axis=0), abs=1e-5)
    assert np.abs(shift).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_moments_are_those_of_the_values_under_the_kernel(kind):
    graph, op, images, x, _ = prepared(kind)
    (moments,) = measure(graph, [images[:40], images[40:]]).values()
    assert covariance_bytes(graph) == moments.covariance.nbytes
    rng = np.random.default_rng(1)
    weight = matrix(op) + rng.normal(size=matrix(op).shape)
    error = output_error(op, weight, x).reshape(-1, op.bias.size)
    per_group = op.bias.size // len(moments.mean)
    for channel in range(op.bias.size):
        group, difference = channel // per_group, weight[:, channel] - matrix(op)[:, channel]
        # Sums over 64 images in float32.
        variance = difference @ moments.covariance[group] @ difference
        assert exact_shift(weight - matrix(op), moments)[channel] == pytest.approx(
            error[:, channel].mean(), rel=1e-3, abs=1e-4
        )
        assert variance == pytest.approx(error[:, channel].var(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_for_the_inputs_leaves_less_error_in_the_outputs(kind):
    graph, op, images, x, scales = prepared(kind)
    (moments,) = measure(graph, [images]).values()

    def spread(integers):
        return (
            output_error(op, dequantize_weight(op, integers, scales), x).reshape(-1, op.bias.size).var(axis=0)
        )

    nearest, rounded = quantize_weight(op, scales), round_weight(op, scales, moments)
    assert (rounded.dtype, rounded.shape) == (nearest.dtype, nearest.shape)
    assert np.abs(rounded.astype(int)).max() <= 127
    # Seen: 0.05 (dense) to 0.7 (depthwise, whose nine taps leave little to choose).
    assert spread(rounded).mean() < 0.8 * spread(nearest).mean()


def test_inputs_that_never_change_leave_the_nearest_integers():
    graph, op, images, _, scales = prepared("conv")
    (moments,) = measure(graph, [images * 0]).values()
    assert np.array_equal(round_weight(op, scales, moments), quantize_weight(op, scales))


def test_fewer_images_than_taps_and_hardly_any_variation_still_give_integers():
    graph, op, images, _, scales = prepared("dense")
    (moments,) = measure(graph, [1000 + images[:3] * 1e-3]).values()
    assert np.linalg.matrix_rank(moments.covariance[0]) < len(matrix(op))
    rounded = round_weight(op, scales, moments)
    # The error of one weight moves others by some steps, not by many.
    assert np.abs(rounded.astype(int) - quantize_weight(op, scales)).max() <= 40


def test_an_indefinite_covariance_is_damped_until_it_is_not():
    _, op, _, _, scales = prepared("dense")
    taps = len(matrix(op))
    covariance = np.eye(taps)
    covariance[0, 1] = covariance[1, 0] = 1.5
    moments = InputMoments(mean=np.zeros((1, taps)), covariance=covariance[None])
    assert round_weight(op, scales, moments).shape == op.weight.shape


def test_the_spec_takes_both_and_is_the_same_each_time():
    graph = layer("conv")
    images = correlated_images(graph)
    statistics, moments = observe(graph, images), measure(graph, [images])
    plain = quantize_graph(graph, dataclasses.replace(RECIPES["int8"], bias_correction=False), statistics)
    corrected = quantize_graph(graph, RECIPES["int8"], statistics)
    rounded = [quantize_graph(graph, RECIPES["int8"], statistics, moments=moments) for _ in range(2)]
    assert plain.spec == corrected.spec == rounded[0].spec
    assert np.array_equal(plain.constants["layer/weight"], corrected.constants["layer/weight"])
    assert not np.array_equal(plain.constants["layer/bias"], corrected.constants["layer/bias"])
    assert not np.array_equal(plain.constants["layer/weight"], rounded[0].constants["layer/weight"])
    for name, values in rounded[0].constants.items():
        assert np.array_equal(values, rounded[1].constants[name])


def test_inputs_are_measured_with_one_blas_thread():
    """On busy cores several threads take ten times as long as one."""
    graph = layer("conv")

    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    def batches():
        seen.append(threads())
        yield np.zeros((1, *graph.input_shape), np.float32)

    seen: list[set[int]] = []
    with threadpool_limits(2, user_api="blas"):  # the environment may have set it to 1
        if threads() != {2}:
            pytest.skip("NumPy's BLAS has no threads to choose")
        measure(graph, batches())
        assert threads() == {2}
    assert seen == [{1}]
