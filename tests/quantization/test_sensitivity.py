"""Sensitivities of channels: against Jacobians that are known, and against noise that is let in."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from resnet_edge.graph import INPUT_NAME
from resnet_edge.graph.execution import execute, execute_all, execute_operator, stream
from resnet_edge.graph.operators import (
    Activation,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    Multiply,
    Reshape,
)
from resnet_edge.quantization.sensitivity import sensitivities
from tests.graph_builder import GraphBuilder, images
from tests.graphs import OPERATOR_GRAPHS


def linear(classes):
    """A network without any bend, so that its Jacobian is the same everywhere."""
    b = GraphBuilder((5, 4, 3), seed=1)
    conv = b.conv(b.image, 4, strides=(2, 1), name="conv")
    flat = b.add(Reshape(shape=(int(np.prod(b.shape(conv))),)), conv)
    return b.graph(b.dense(flat, classes, name="dense"))


def gram(graph, name):
    """Products of the Jacobian's rows, by channel of the image or ``conv``, (channels, classes, classes)."""
    weight = graph.by_name["dense"].op.weight.astype(np.float64)
    jacobian = weight.reshape(*graph.shapes["conv"], graph.classes)
    if name == INPUT_NAME:
        # The graph is affine: a unit in each pixel by itself shows the pixel's column.
        units = np.eye(60, dtype=np.float32).reshape(60, 5, 4, 3)
        columns = execute(graph, units) - execute(graph, np.zeros_like(units))
        jacobian = columns.astype(np.float64).reshape(5, 4, 3, graph.classes)
    return np.einsum("hwca,hwcb->cab", jacobian, jacobian)


@pytest.mark.parametrize("name", ["conv", INPUT_NAME])
def test_a_linear_network_with_one_logit_has_the_squares_of_its_weights(name):
    graph = linear(1)
    found = sensitivities(graph, [images(graph)])
    # Differences of float32 outputs show the image's columns.
    assert found[name] == pytest.approx(gram(graph, name)[:, 0, 0], rel=1e-4)
    assert found["dense"] == pytest.approx([1])


@pytest.mark.parametrize("name", ["conv", INPUT_NAME])
def test_random_signs_estimate_the_sum_over_logits(name):
    graph, count = linear(6), 1000
    found = sensitivities(graph, [images(graph, count)])[name]
    of_channel = gram(graph, name)
    exact = np.trace(of_channel, axis1=1, axis2=2)
    # Hutchinson: the variance of s' G s is twice the sum of squares beside the diagonal.
    beside = (of_channel**2).sum(axis=(1, 2)) - (np.diagonal(of_channel, axis1=1, axis2=2) ** 2).sum(axis=1)
    deviation = np.sqrt(2 * beside / count)
    assert (np.abs(found - exact) < 4 * deviation).all()
    # Signs that were the same for all images would miss by sqrt(1000) times as much.
    assert (deviation < 0.05 * exact).all()


def with_noise(graph, batch, name, channel, deviation):
    """The logits with white noise in one channel of one tensor, where that is not zero."""
    rng = np.random.default_rng(7)

    def run(node, inputs):
        tensor = execute_operator(node.op, *inputs).copy()
        if node.name == name:
            noise = rng.normal(0, deviation, tensor.shape[:-1]).astype(np.float32)
            tensor[..., channel] += noise * (tensor[..., channel] != 0)
        return tensor

    return {node.name: tensor for node, tensor in stream(graph, batch, run)}[graph.logits]


@pytest.mark.parametrize(
    ("name", "channel"),
    [(INPUT_NAME, 1), ("stem", 2), ("stage1/block.0/conv-1", 5), ("stage1/block.0/add", 0), ("pool", 4)],
)
def test_noise_in_a_channel_reaches_the_logits_with_the_power_foretold(name, channel):
    graph = OPERATOR_GRAPHS["residual_block"]
    batch = images(graph, 4000)
    foretold = sensitivities(graph, [batch[:2000], batch[2000:]])[name][channel]
    # Small beside activations near 1, so that few of them cross a kink; a thousand times float32's rounding.
    deviation = 1e-3
    clean, noisy = (
        with_noise(graph, batch, name, channel, size).astype(np.float64) for size in (0, deviation)
    )
    power = ((noisy - clean) ** 2).sum(axis=1).mean() / deviation**2
    # Squares of signs and of noise in one image deviate by at most sqrt(2) times their mean each, and images
    # whose channel is zero show neither. Three times the deviation that is left over all images.
    live = execute_all(graph, batch)[name][..., channel].reshape(len(batch), -1).any(axis=1).sum()
    assert power == pytest.approx(foretold, rel=3 * 2 / np.sqrt(live))
    assert live > 3000
    assert foretold > 0


def test_batches_make_no_difference():
    graph = OPERATOR_GRAPHS["squeeze_and_excitation"]
    batch = images(graph, 12)
    whole = sensitivities(graph, [batch])
    for sizes in ([1] * 12, [5, 7], [4, 1, 7]):
        ends = np.cumsum(sizes)
        parts = sensitivities(graph, (batch[end - size : end] for size, end in zip(sizes, ends, strict=True)))
        for name, values in whole.items():
            # BLAS sums matrices of other sizes in another order.
            assert parts[name] == pytest.approx(values, rel=1e-4), name


def test_figures_are_repeated_exactly_by_name_and_channel():
    graph = OPERATOR_GRAPHS["residual_block"]
    first, second = (sensitivities(graph, [images(graph)]) for _ in range(2))
    assert {name: values.shape for name, values in first.items()} == {
        name: shape[-1:] for name, shape in graph.shapes.items()
    }
    assert {values.dtype for values in first.values()} == {np.dtype(np.float64)}
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("function", [Function.SOFTMAX, Function.SIGMOID])
def test_probabilities_are_looked_behind(function):
    b = GraphBuilder((6, 5, 3))
    hidden = b.conv(b.image, 4, activation=Activation.RELU)
    logits = b.dense(b.add(GlobalAveragePool(), hidden), name="dense")
    without = b.graph(logits)
    graph = b.graph(b.function(logits, function, name="end"))
    # Far out, where probabilities are 0 or 1 in float32.
    batch = [1e4 * images(graph)]
    found, expected = sensitivities(graph, batch), sensitivities(without, batch)
    assert not found.pop("end").any()
    assert found["dense"].tolist() == [1.0] * graph.classes
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert found[hidden].any()


def test_a_gate_inside_the_network_is_no_end():
    b = GraphBuilder((6, 5, 3))
    pooled = b.add(GlobalAveragePool(), b.image)
    gate = b.function(b.dense(pooled, 3), Function.SIGMOID)
    graph = b.graph(b.add(Multiply(), pooled, gate))
    assert graph.logits == graph.output
    assert sensitivities(graph, [images(graph)])[graph.output].tolist() == [1.0] * 3


def test_what_the_logits_do_not_depend_on_has_none():
    b = GraphBuilder((6, 5, 3))
    unused = b.conv(b.image, 4)
    graph = b.graph(b.dense(b.add(GlobalMaxPool(), b.image)))
    assert sensitivities(graph, [images(graph)])[unused].tolist() == [0.0] * 4


def test_no_images_are_refused():
    graph = OPERATOR_GRAPHS["conv_1x1"]
    with pytest.raises(ValueError, match="at least one image"):
        sensitivities(graph, [])


def test_matrices_are_multiplied_in_one_thread():
    graph = OPERATOR_GRAPHS["conv_1x1"]

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    def watched():
        during.update(threads())
        yield images(graph)

    during: set[int] = set()
    with threadpool_limits(2, user_api="blas"):  # the environment may have set it to 1
        if threads() != {2}:
            pytest.skip("NumPy's BLAS has no threads to choose")
        sensitivities(graph, watched())
        assert threads() == {2}
    assert during == {1}
