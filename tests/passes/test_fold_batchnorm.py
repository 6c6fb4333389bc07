from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.graph.execution import execute
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Function,
    GlobalAveragePool,
    LeakyRelu,
    MaxPool2D,
    Pad,
    Permute,
    Reshape,
    Slice,
    Upsample2D,
)
from resnet_edge.passes.fold_batchnorm import fold_batchnorm
from tests.graph_builder import GraphBuilder, images
from tests.passes.comparison import changed, difference, holds_affine, reasons

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnet_edge.graph import Graph

# One batch norm in one operator: a handful of roundings of 6e-8, relative to the largest output.
TOLERANCE = 2e-6


def _folds(graph: Graph, expected: dict[str, tuple[str, tuple[str, ...]]]) -> Graph:
    """Check that everything folds, as expected, and computes the same; the folded graph."""
    folded, report = fold_batchnorm(graph)
    assert changed(report) == expected
    assert not report.kept
    assert not holds_affine(folded)
    assert difference(graph, folded) <= TOLERANCE
    return folded


def _keeps(graph: Graph, reason: str, node: str = "norm") -> Graph:
    """Check that a node stays for this reason; the graph after the pass."""
    after, report = fold_batchnorm(graph)
    assert reasons(report) == {node: reason}
    assert node in after.by_name
    assert difference(graph, after) <= TOLERANCE
    return after


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_conv(groups: int, bias: bool) -> None:
    builder = GraphBuilder((6, 6, 4))
    conv = builder.conv(builder.image, 8, groups=groups, bias=bias, strides=(2, 2), name="conv")
    norm = builder.batch_norm(conv, name="norm")
    folded = _folds(builder.classified(norm), {"norm": ("folded backward", ("conv",))})
    assert isinstance(folded.by_name["conv"].op, Conv2D)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(multiplier: int) -> None:
    builder = GraphBuilder((6, 6, 3))
    conv = builder.depthwise(builder.image, multiplier=multiplier, name="conv")
    _folds(
        builder.classified(builder.batch_norm(conv, name="norm")), {"norm": ("folded backward", ("conv",))}
    )


def test_dense_at_the_end() -> None:
    builder = GraphBuilder((6, 6, 3))
    dense = builder.dense(builder.add(GlobalAveragePool(), builder.image), name="dense")
    folded = _folds(
        builder.graph(builder.batch_norm(dense, name="norm")), {"norm": ("folded backward", ("dense",))}
    )
    assert folded.output == "dense"


def test_formula_in_numbers() -> None:
    """gamma -2, sqrt(variance + epsilon) 0.5: W * -4, beta + (b - mean) * -4."""
    builder = GraphBuilder((1, 1, 1))
    conv = builder.add(Conv2D(weight=np.full((1, 1, 1, 1), 3, "f"), bias=np.full(1, 5, "f")), "image")
    one = np.ones(1, np.float32)
    norm = BatchNorm(gamma=-2 * one, beta=7 * one, mean=one, variance=0.2 * one, epsilon=0.05)
    graph = builder.graph(builder.add(Reshape(shape=(1,)), builder.add(norm, conv)))
    folded = fold_batchnorm(graph)[0].by_name[conv].op
    assert isinstance(folded, Conv2D)
    # 0.2 and 0.05 are not binary fractions: sqrt is off by one unit in the last place.
    assert folded.weight.item() == pytest.approx(-12, rel=1e-6)
    assert folded.bias.item() == pytest.approx(7 + (5 - 1) * -4, rel=1e-6)


@pytest.mark.parametrize("variance", [0.0, 1e-30, 1e-12])
def test_variance_of_dead_channels(variance: float) -> None:
    """Only epsilon is left below the root; a constant channel still folds exactly."""
    builder = GraphBuilder((6, 6, 3))
    norm = builder.batch_norm(
        builder.conv(builder.image, 4, name="conv"), variance=variance, epsilon=1.001e-5, name="norm"
    )
    _folds(builder.classified(norm), {"norm": ("folded backward", ("conv",))})


def test_scale_of_zero_leaves_the_offset() -> None:
    builder = GraphBuilder((6, 6, 3))
    conv = builder.conv(builder.image, 4, name="conv")
    norm = builder.batch_norm(conv, name="norm")
    graph = builder.classified(norm)
    op = graph.by_name["norm"].op
    assert isinstance(op, BatchNorm)
    dead = replace(op, gamma=np.zeros(4, np.float32))
    nodes = tuple(replace(node, op=dead) if node.name == "norm" else node for node in graph.nodes)
    folded = _folds(replace(graph, nodes=nodes), {"norm": ("folded backward", ("conv",))}).by_name["conv"].op
    assert isinstance(folded, Conv2D)
    assert not folded.weight.any()
    np.testing.assert_array_equal(folded.bias, op.beta)


def test_scale_that_would_overflow_stays() -> None:
    builder = GraphBuilder((4, 4, 1))
    weight = np.full((1, 1, 1, 1), 1e30, np.float32)
    conv = builder.add(Conv2D(weight=weight, bias=np.zeros(1, np.float32)), "image", name="conv")
    norm = builder.batch_norm(conv, variance=0.0, epsilon=1e-30, name="norm")
    graph = builder.graph(builder.function(builder.add(GlobalAveragePool(), norm), name="end"))
    after, report = fold_batchnorm(graph)
    assert not report.changes
    assert reasons(report)["norm"].startswith(
        "follows Conv2D 'conv', but the folded weights would not fit float32"
    )
    assert after.by_name["norm"].op is graph.by_name["norm"].op


def test_sums_that_would_overflow_stay() -> None:
    """Every folded weight fits float32, their sum over a window does not."""
    builder = GraphBuilder((3, 3, 1))
    weight = np.full((3, 3, 1, 1), 1e20, np.float32)
    conv = builder.add(Conv2D(weight=weight, bias=np.zeros(1, np.float32)), "image", name="conv")
    one = np.ones(1, np.float32)
    norm = BatchNorm(gamma=one * 3e18, beta=one, mean=one, variance=one, epsilon=0.0)
    scaled = builder.function(builder.add(norm, conv, name="norm"), name="relu")
    _, report = fold_batchnorm(builder.classified(scaled))
    assert reasons(report)["norm"].startswith("the result would not fit float32")


@pytest.mark.parametrize(
    ("between", "shape"),
    [
        (GlobalAveragePool(), (4,)),
        (GlobalAveragePool(keepdims=True), (1, 1, 4)),
        (AveragePool2D(size=(3, 3), strides=(2, 2), padding=Padding(top=1, left=1)), (3, 3, 4)),
        (Upsample2D(size=(2, 2), bilinear=True), (12, 12, 4)),
        (Reshape(shape=(3, 12, 4)), (3, 12, 4)),
    ],
)
def test_backward_through_means_and_reshapes(between: GlobalAveragePool, shape: tuple[int, ...]) -> None:
    builder = GraphBuilder((6, 6, 3))
    x = builder.add(between, builder.conv(builder.image, 4, name="conv"))
    assert builder.shape(x) == shape
    active = builder.function(builder.batch_norm(x, name="norm"))
    _folds(builder.classified(active), {"norm": ("folded backward", ("conv",))})


@pytest.mark.parametrize("groups", [1, 2])
def test_forward_into_an_unpadded_conv(groups: int) -> None:
    builder = GraphBuilder((6, 6, 4))
    norm = builder.batch_norm(builder.function(builder.image), name="norm")
    conv = builder.conv(norm, 6, padding=Padding(), groups=groups, activation=Activation.RELU, name="conv")
    _folds(builder.classified(conv), {"norm": ("folded forward", ("conv",))})


def test_forward_into_an_unpadded_depthwise_conv() -> None:
    builder = GraphBuilder((6, 6, 3))
    norm = builder.batch_norm(builder.image, name="norm")
    conv = builder.depthwise(norm, multiplier=2, padding=Padding(), name="conv")
    _folds(builder.classified(conv), {"norm": ("folded forward", ("conv",))})


def test_scale_without_offset_goes_into_a_padded_conv() -> None:
    builder = GraphBuilder((6, 6, 3))
    scale = builder.affine(builder.image, offset=False, name="scale")
    padded = builder.add(Pad(padding=Padding(top=1), channels=(1, 2)), scale)
    conv = builder.conv(padded, 4, name="conv")
    _folds(builder.classified(conv), {"scale": ("folded forward", ("conv",))})


def test_flatten_repeats_the_channels() -> None:
    builder = GraphBuilder((3, 2, 4))
    norm = builder.batch_norm(builder.function(builder.image), name="norm")
    dense = builder.dense(builder.add(Reshape(shape=(24,)), norm), name="dense")
    _folds(builder.graph(dense), {"norm": ("folded forward", ("dense",))})


def test_batch_norm_of_flattened_features() -> None:
    builder = GraphBuilder((3, 2, 4))
    flat = builder.add(Reshape(shape=(24,)), builder.function(builder.image))
    norm = builder.batch_norm(flat, name="norm")
    _folds(builder.graph(builder.dense(norm, name="dense")), {"norm": ("folded forward", ("dense",))})


def test_forward_into_all_consumers() -> None:
    builder = GraphBuilder((6, 6, 4))
    norm = builder.batch_norm(builder.function(builder.image), name="norm")
    first = builder.conv(norm, 4, (1, 1), name="first")
    half = builder.add(Slice(begin=(0, 0, 1), end=(6, 6, 4), strides=(1, 1, 2)), norm)
    second = builder.conv(half, 4, (1, 1), name="second")
    graph = builder.classified(builder.add(Add(), first, second))
    _folds(graph, {"norm": ("folded forward", ("first", "second"))})


def test_affines_in_a_row_become_one() -> None:
    builder = GraphBuilder((6, 6, 3))
    first = builder.batch_norm(builder.function(builder.image), name="first")
    second = builder.batch_norm(builder.affine(first, name="middle"), name="norm")
    graph = builder.classified(builder.function(second, name="relu"))
    after, report = fold_batchnorm(graph)
    assert changed(report) == {
        "first": ("folded forward", ("middle",)),
        "middle": ("folded forward", ("norm",)),
    }
    assert reasons(report).keys() == {"norm"}
    assert difference(graph, after) <= TOLERANCE


def test_affine_is_folded_like_a_batch_norm() -> None:
    builder = GraphBuilder((6, 6, 3))
    affine = builder.affine(builder.conv(builder.image, 4, name="conv"), name="affine")
    _folds(builder.classified(affine), {"affine": ("folded backward", ("conv",))})


def _conv(builder: GraphBuilder, **attributes: object) -> str:
    return builder.conv(builder.image, 3, name="conv", **attributes)  # type: ignore[arg-type]


def _two_consumers(builder: GraphBuilder) -> str:
    conv = _conv(builder)
    norm = builder.function(builder.batch_norm(conv, name="norm"), name="relu")
    return builder.add(Concat(), norm, builder.function(conv, name="other"))


def _behind_a_mean_with_two_consumers(builder: GraphBuilder) -> str:
    pool = builder.add(AveragePool2D(size=(2, 2), strides=(2, 2)), _conv(builder), name="pool")
    norm = builder.function(builder.batch_norm(pool, name="norm"), name="relu")
    return builder.add(Concat(), norm, builder.function(pool, name="other"))


def _fused_activation(builder: GraphBuilder) -> str:
    norm = builder.batch_norm(_conv(builder, activation=Activation.RELU), name="norm")
    return builder.function(norm, name="relu")


def _after_add(builder: GraphBuilder) -> str:
    total = builder.add(Add(), builder.image, builder.image, name="add")
    return builder.function(builder.batch_norm(total, name="norm"), name="relu")


def _after_leaky_relu(builder: GraphBuilder) -> str:
    norm = builder.batch_norm(builder.function(_conv(builder), name="relu"), name="norm")
    return builder.add(LeakyRelu(alpha=0.1), norm, name="leaky")


def _before_a_padded_conv(builder: GraphBuilder) -> str:
    pool = builder.add(MaxPool2D(size=(2, 2), strides=(2, 2)), builder.image, name="pool")
    return builder.conv(builder.batch_norm(pool, name="norm"), 4, name="next")


def _before_a_pad(builder: GraphBuilder) -> str:
    norm = builder.batch_norm(builder.function(builder.image, name="relu"), name="norm")
    padded = builder.add(Pad(padding=Padding(left=1)), norm, name="pad")
    return builder.conv(padded, 4, padding=Padding())


def _before_a_max_pool(builder: GraphBuilder) -> str:
    norm = builder.batch_norm(builder.image, name="norm")
    return builder.conv(builder.add(MaxPool2D(size=(2, 2), strides=(2, 2)), norm, name="pool"), 4)


def _one_of_two_consumers_cannot(builder: GraphBuilder) -> str:
    norm = builder.batch_norm(builder.image, name="norm")
    conv = builder.conv(norm, 3, (1, 1), name="able")
    return builder.add(Add(), conv, builder.function(norm, Function.SIGMOID, name="gate"))


def _channels_torn_apart(builder: GraphBuilder) -> str:
    norm = builder.batch_norm(builder.image, name="norm")
    return builder.add(Reshape(shape=(6, 9, 2)), norm, name="torn")


def _channels_moved(builder: GraphBuilder) -> str:
    norm = builder.batch_norm(builder.image, name="norm")
    return builder.add(Permute(order=(2, 0, 1)), norm, name="moved")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            _two_consumers,
            "Conv2D 'conv' also feeds 'other'; its relu 'relu' keeps it from the next convolution",
        ),
        (
            _behind_a_mean_with_two_consumers,
            "AveragePool2D 'pool' also feeds 'other'; its relu 'relu' keeps it from the next convolution",
        ),
        (
            _fused_activation,
            (
                "follows Conv2D 'conv', but relu comes between; "
                "its relu 'relu' keeps it from the next convolution"
            ),
        ),
        (_after_add, "follows Add 'add'; its relu 'relu' keeps it from the next convolution"),
        (
            _after_leaky_relu,
            "follows relu 'relu'; its LeakyRelu 'leaky' keeps it from the next convolution",
        ),
        (
            _before_a_padded_conv,
            "follows MaxPool2D 'pool'; Conv2D 'next' pads with zeros, which the offset does not reach",
        ),
        (_before_a_pad, "follows relu 'relu'; Pad 'pad' adds zeros, which the offset does not reach"),
        (_before_a_max_pool, "follows Input 'image'; feeds MaxPool2D 'pool'"),
        (
            _one_of_two_consumers_cannot,
            "follows Input 'image'; its sigmoid 'gate' keeps it from the next convolution",
        ),
        (_channels_torn_apart, "follows Input 'image'; feeds Reshape 'torn'"),
        (_channels_moved, "follows Input 'image'; feeds Permute 'moved'"),
    ],
)
def test_reasons(build: Callable[[GraphBuilder], str], reason: str) -> None:
    builder = GraphBuilder((6, 6, 3))
    _keeps(builder.classified(build(builder)), reason)


def test_reason_at_the_end() -> None:
    builder = GraphBuilder((6, 6, 3))
    hidden = builder.dense(
        builder.add(GlobalAveragePool(), builder.image), activation=Activation.RELU, name="dense"
    )
    graph = builder.graph(builder.batch_norm(hidden, name="norm"))
    _keeps(graph, "follows Dense 'dense', but relu comes between; nothing follows that could take it")


def test_producer_that_is_the_output_keeps_its_value() -> None:
    """A graph may go on behind its output; folding would change the output."""
    builder = GraphBuilder((1, 1, 3))
    dense = builder.dense(builder.add(GlobalAveragePool(), builder.image), name="dense")
    builder.batch_norm(dense, name="norm")
    graph = builder.graph(dense)
    after, report = fold_batchnorm(graph)
    assert reasons(report)["norm"].startswith("Dense 'dense' is the model's output too")
    np.testing.assert_array_equal(execute(after, images(graph)), execute(graph, images(graph)))


def test_output_keeps_its_value_though_nodes_follow_that_nothing_needs() -> None:
    builder = GraphBuilder((1, 1, 3))
    norm = builder.batch_norm(builder.add(GlobalAveragePool(), builder.image), name="norm")
    builder.dense(norm)
    graph = builder.graph(norm)
    _keeps(graph, "follows Input 'image'; nothing follows that could take it")


def test_error_is_that_of_the_seeded_inputs() -> None:
    """The reported error is real: it grows with the scale, and is not zero where float32 rounds."""
    errors = []
    for variance in (1.0, 1e-12):
        builder = GraphBuilder((6, 6, 16))
        norm = builder.batch_norm(builder.conv(builder.image, 16), variance=variance, epsilon=1e-5)
        _, report = fold_batchnorm(builder.classified(norm))
        (change,) = report.changes
        assert change.max_abs_error is not None
        errors.append(change.max_abs_error)
    # About 144 products near 1/12, each rounded by 6e-8; times 316 where the variance vanishes.
    assert 0 < errors[0] < 1e-5
    assert 30 * errors[0] < errors[1] < 1e-3


def test_weights_stay_float32() -> None:
    builder = GraphBuilder((3, 2, 4))
    norm = builder.batch_norm(builder.image)
    dense = builder.dense(builder.add(Reshape(shape=(24,)), builder.affine(norm)), name="dense")
    folded = fold_batchnorm(builder.graph(dense))[0].by_name["dense"].op
    assert isinstance(folded, Dense)
    assert folded.weight.dtype == folded.bias.dtype == np.float32
