"""Taking pixels must give what normalizing them outside gives, along the border above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.graph.execution import execute, execute_all
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import Concat, Conv2D, DepthwiseConv2D, Function, GlobalAveragePool, Pad
from resnet_edge.passes import run_passes
from resnet_edge.passes.base import ObstacleError
from resnet_edge.passes.channel_affine import ChannelAffine, prepend
from tests.graph_builder import GraphBuilder
from tests.passes.comparison import changed, kinds, reasons

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.passes import PassesResult, PassReport

CONTRACTS = ["raw", "unit", "tf", "caffe", "torch"]


def _pixels(graph: Graph) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, *graph.input_shape)).astype(np.uint8)


def _contract(graph: Graph, name: str) -> Preprocessing:
    height, width, channels = graph.input_shape
    return Preprocessing.parse(name, channels, (height, width))


def _folded(graph: Graph, contract: str, *, fold: bool = True) -> tuple[PassesResult, PassReport]:
    """The passes' result, checked against preprocessing outside of the graph."""
    preprocessing = _contract(graph, contract)
    result = run_passes(graph, fold=fold, preprocessing=preprocessing)
    pixels = _pixels(graph)
    expected = execute(graph, preprocessing.apply(pixels))
    actual = execute(result.graph, pixels.astype(np.float32))
    # Pixels reach 255 where inputs reach 2.6, and the offset takes the excess away again: rounding of 6e-8
    # counts a hundredfold, on sums of a few dozen terms.
    assert np.abs(actual - expected).max() <= 5e-5 * max(1.0, np.abs(expected).max())
    report = result.report("fold_input_normalization")
    assert report is not None
    return result, report


def _stem(padding: Padding | None, *, channels: int = 3, groups: int = 1) -> Graph:
    builder = GraphBuilder((8, 7, channels))
    conv = builder.conv(builder.image, 6, padding=padding, groups=groups, name="stem")
    return builder.classified(builder.function(builder.batch_norm(conv)))


@pytest.mark.parametrize("contract", CONTRACTS)
def test_unpadded_stem_takes_everything(contract: str) -> None:
    result, report = _folded(_stem(Padding()), contract)
    assert kinds(result.graph) == {"image": "Input", "stem": "Conv2D", "head": "Conv2D", "flat": "Reshape"}
    assert not report.kept
    folded = {"input_normalization"} if contract != "raw" else set()
    assert changed(report).keys() == folded | ({"input_order"} if contract == "caffe" else set())


@pytest.mark.parametrize("contract", ["tf", "caffe", "torch"])
def test_padded_stem_keeps_the_mean_in_front(contract: str) -> None:
    result, report = _folded(_stem(None), contract)
    op = result.graph.by_name["input_normalization"].op
    assert isinstance(op, DepthwiseConv2D)
    assert op.weight.shape == (1, 1, 3, 1)
    assert reasons(report) == {
        "input_normalization": "Conv2D 'stem' pads with zeros, which the offset does not reach"
    }
    # The order of the channels still goes into the stem: zeros are zeros in any order.
    assert changed(report).keys() == ({"input_order"} if contract == "caffe" else set())


@pytest.mark.parametrize("contract", ["raw", "unit"])
def test_padded_stem_takes_a_scale_without_mean(contract: str) -> None:
    result, report = _folded(_stem(None), contract)
    assert "input_normalization" not in result.graph.by_name
    assert not report.kept


def test_folding_a_mean_into_a_padded_stem_would_be_wrong_at_the_border() -> None:
    """What the pass refuses to do, done: right inside, far off along the border."""
    builder = GraphBuilder((8, 8, 3))
    graph = builder.classified(builder.conv(builder.image, 6, name="stem"))
    preprocessing = _contract(graph, "torch")
    stem = graph.by_name["stem"].op
    assert isinstance(stem, Conv2D)
    scale, offset = preprocessing.affine()
    with pytest.raises(ObstacleError, match="pads with zeros"):
        prepend(stem, ChannelAffine(scale=scale, offset=offset))
    unpadded = Conv2D(weight=stem.weight, bias=stem.bias)
    forced = prepend(unpadded, ChannelAffine(scale=scale, offset=offset))
    pixels = _pixels(graph)
    right = execute_all(graph, preprocessing.apply(pixels))["stem"]
    bordered = np.pad(pixels.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    builder = GraphBuilder((10, 10, 3))
    wrong = execute_all(builder.graph(builder.add(forced, builder.image, name="stem")), bordered)["stem"]
    error = np.abs(wrong - right)
    assert error[:, 1:-1, 1:-1].max() < 1e-4
    noise = np.square(wrong - right).mean()
    # In whole models 10 to 31 dB were seen.
    assert 10 * np.log10(np.square(right).mean() / noise) < 31


@pytest.mark.parametrize("contract", ["tf", "caffe", "torch"])
def test_pad_in_front_of_the_stem_counts_as_padding(contract: str) -> None:
    builder = GraphBuilder((8, 7, 3))
    padded = builder.add(Pad(padding=Padding(top=1, bottom=1, left=1, right=1)), builder.image, name="pad")
    graph = builder.classified(builder.conv(padded, 6, padding=Padding(), name="stem"))
    result, report = _folded(graph, contract)
    assert reasons(report) == {"input_normalization": "Pad 'pad' adds zeros, which the offset does not reach"}
    assert kinds(result.graph) == {
        "image": "Input",
        "input_normalization": "DepthwiseConv2D",
        "stem": "Conv2D",
        "head": "Conv2D",
        "flat": "Reshape",
    }


def test_order_cannot_pass_channels_padded_in_front() -> None:
    builder = GraphBuilder((8, 7, 3))
    padded = builder.add(Pad(channels=(1, 0)), builder.image, name="pad")
    _, report = _folded(builder.classified(builder.conv(padded, 6, padding=Padding())), "caffe")
    assert reasons(report)["input_order"].startswith("feeds Pad 'pad'")


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    result, report = _folded(_stem(Padding(), channels=channels), "tf")
    assert "input_normalization" not in result.graph.by_name
    assert not report.kept


@pytest.mark.parametrize("contract", CONTRACTS)
def test_batch_norm_in_front_of_a_padded_stem(contract: str) -> None:
    """The model's own normalization takes the other up, and counts as the batch norm it was."""
    builder = GraphBuilder((8, 7, 3))
    norm = builder.batch_norm(builder.image, name="norm")
    result, report = _folded(builder.classified(builder.conv(norm, 6)), contract)
    assert not report.kept
    folds = result.report("fold_batchnorm")
    assert folds is not None
    assert [(kept.node, kept.kind) for kept in folds.kept] == [("norm", "BatchNorm")]
    assert [name for name, kind in kinds(result.graph).items() if kind == "DepthwiseConv2D"] == ["norm"]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_rescaling_in_the_model_takes_the_normalization_up(contract: str) -> None:
    builder = GraphBuilder((8, 7, 3))
    conv = builder.conv(builder.affine(builder.image, name="rescaling"), 6, padding=Padding(), name="stem")
    result, report = _folded(builder.classified(conv), contract)
    assert not report.kept
    assert list(kinds(result.graph)) == ["image", "stem", "head", "flat"]


@pytest.mark.parametrize("contract", ["caffe", "torch"])
def test_model_without_a_stem(contract: str) -> None:
    builder = GraphBuilder((8, 7, 3))
    gate = builder.function(builder.image, Function.SIGMOID, name="gate")
    result, report = _folded(builder.classified(gate), contract)
    left = kinds(result.graph)
    if contract == "caffe":
        assert reasons(report) == {
            "input_order": "feeds sigmoid 'gate', which has no order of its inputs to change"
        }
        # One convolution of one pixel does both.
        assert left["input_order"] == "Conv2D"
        assert changed(report) == {"input_normalization": ("folded forward", ("input_order",))}
    else:
        assert left["input_normalization"] == "DepthwiseConv2D"


@pytest.mark.parametrize("contract", CONTRACTS)
def test_dense_behind_a_mean(contract: str) -> None:
    builder = GraphBuilder((8, 7, 3))
    graph = builder.graph(builder.dense(builder.add(GlobalAveragePool(), builder.image)))
    _folded(graph, contract)


@pytest.mark.parametrize("contract", ["caffe", "torch"])
def test_grouped_stem(contract: str) -> None:
    """Reversing the channels would mix the groups: the order needs a convolution of its own."""
    _, report = _folded(_stem(Padding(), groups=3), contract)
    assert reasons(report).keys() == ({"input_order"} if contract == "caffe" else set())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_two_stems(contract: str) -> None:
    builder = GraphBuilder((8, 7, 3))
    first = builder.conv(builder.image, 4, (1, 1), name="first")
    second = builder.conv(builder.image, 4, (1, 1), name="second")
    result, report = _folded(builder.classified(builder.add(Concat(), first, second)), contract)
    assert not report.kept
    assert result.graph.by_name["first"].inputs == result.graph.by_name["second"].inputs == ("image",)


@pytest.mark.parametrize("contract", ["caffe", "torch"])
def test_without_batch_norm_folding(contract: str) -> None:
    result, _ = _folded(_stem(Padding()), contract, fold=False)
    assert "BatchNorm" in kinds(result.graph).values()
    assert "input_normalization" not in result.graph.by_name


def test_name_in_use_is_avoided() -> None:
    builder = GraphBuilder((8, 7, 3))
    graph = builder.classified(builder.conv(builder.image, 6, name="input_normalization"))
    result, _ = _folded(graph, "torch")
    assert kinds(result.graph)["input_normalization_2"] == "DepthwiseConv2D"
