"""Comparison layer by layer: healthy files have no kernel bug, and damage is found where it was done."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from resnet_edge.converters import ConversionSettings
from resnet_edge.errors import UsageError
from resnet_edge.graph.execution import execute_all
from resnet_edge.passes import run_passes
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import load_recipes
from resnet_edge.verification.formats import FileForm, OnnxForm, TFLiteForm
from resnet_edge.verification.layers import IMAGES, compare_layers
from resnet_edge.verification.tampering import edit_constant, edit_scale
from tests.graph_builder import images
from tests.graphs import OPERATOR_GRAPHS
from tests.quantization.calibrated import observe
from tests.residual_graphs import residual_graphs
from tests.verification.artifacts import RECIPES, network, quantized_as, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.engines import Kernels
    from resnet_edge.graph import Graph
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.formats import Run
    from resnet_edge.verification.layer import Layer, Layers

HEALTHY = {"exact", "within 1 LSB", "rounding"}
GRAPHS = {name: run_passes(graph).graph for name, graph in OPERATOR_GRAPHS.items()}
TIER_1 = sorted(name for name, graph in GRAPHS.items() if all(node.op.tier == 1 for node in graph.nodes))
FORMATS = sorted(RECIPES)


def compare(path: Path, quantized: Quantized, kernels: Kernels = "xnnpack", count: int = 2) -> Layers:
    inputs = images(quantized.graph, count, seed=1)
    return compare_layers(path, path.suffix[1:], quantized, inputs, kernels=kernels)


def by_name(layers: Layers) -> dict[str, Layer]:
    return {layer.node: layer for layer in layers.layers}


def assert_healthy(layers: Layers) -> None:
    assert {layer.verdict for layer in layers.layers} <= HEALTHY, layers.layers
    assert layers.wrong == ()
    assert "no kernel bug" in layers.sentence


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", TIER_1)
def test_every_integer_operator_computes_what_the_reference_does(
    name: str, format_: str, tmp_path: Path
) -> None:
    quantized = quantized_as(GRAPHS[name], "int8")
    layers = compare(write(quantized, tmp_path, format_), quantized, count=1)
    assert_healthy(layers)
    assert [layer.node for layer in layers.layers] == [node.name for node in quantized.graph.nodes]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", sorted(GRAPHS.keys() - set(TIER_1)))
def test_every_float_operator_is_within_its_precision(name: str, format_: str, tmp_path: Path) -> None:
    for recipe in ("fp32", "fp16"):
        quantized = quantized_as(GRAPHS[name], recipe)
        assert_healthy(compare(write(quantized, tmp_path, format_), quantized, count=1))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=residual_graphs(), case=st.sampled_from([(f, r) for f in FORMATS for r in RECIPES[f]]))
def test_healthy_residual_networks_have_no_kernel_bug(
    graph: Graph, case: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    format_, recipe = case
    quantized = quantized_as(run_passes(graph).graph, recipe)
    tensors = execute_all(quantized.graph, images(quantized.graph, 2, seed=1))
    # Beyond it float16 is infinite, which is no false alarm.
    assume(recipe != "fp16" or max(np.abs(tensor).max() for tensor in tensors.values()) < 60_000)
    path = write(quantized, tmp_path_factory.mktemp("residual"), format_)
    assert_healthy(compare(path, quantized))
    if (format_, recipe) == ("tflite", "int8"):
        exact = compare(path, quantized, "reference")
        assert {layer.verdict for layer in exact.layers} == {"exact"}


@pytest.mark.parametrize("format_", FORMATS)
def test_what_it_tells_of_a_healthy_file(format_: str, tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    # On the images of the calibration: nothing is clipped, so no layer stands out.
    path, inputs = write(quantized, tmp_path, format_), images(quantized.graph, IMAGES + 1)
    layers = compare_layers(path, format_, quantized, inputs)
    assert layers.images == IMAGES
    assert layers.first == ""
    alone = {layer.node: layer.alone_db for layer in layers.layers if layer.alone_db is not None}
    assert layers.worst == min(alone, key=lambda name: alone[name])
    assert layers.worst in layers.sentence
    assert "accumulated drift" in layers.sentence
    # Errors of the layers before come on top of a layer's own.
    assert all((by_name(layers)[name].as_run_db or 0) < alone[name] + 1 for name in ("two", "three"))


@pytest.mark.parametrize("format_", FORMATS)
def test_drift_alone_is_no_kernel_bug(format_: str, tmp_path: Path) -> None:
    """Calibration saw an outlier behind one layer, so that its scale is far too large."""
    graph = network()
    statistics = observe(graph)
    low, high = statistics.ranges["two"]
    outlier = replace(statistics, ranges={**statistics.ranges, "two": (16 * low, 16 * high)})
    coarse = quantize_graph(graph, load_recipes()["int8"], outlier)
    layers = compare(write(coarse, tmp_path, format_), coarse)
    assert_healthy(layers)
    assert (layers.first, layers.worst) == ("two", "two")
    assert "accumulated drift first falls at two" in layers.sentence


def test_a_healthy_kernel_excuses_no_layer_before_it(tmp_path: Path) -> None:
    """What is behind a layer that quantizes badly inherits its error as run, but has none of it alone."""
    quantized = quantized_as(network(), "int8")
    path = write(quantized, tmp_path, "tflite")
    before = by_name(compare(path, quantized))
    edit_constant(path, "one", "weight", lambda weight: weight // 8)
    after = by_name(compare(path, quantized))
    for name in ("two", "three", "sum"):
        assert after[name].alone_db == before[name].alone_db
        assert (after[name].as_run_db or 0) < (before[name].as_run_db or 0) - 10
        assert after[name].verdict in HEALTHY


@pytest.mark.parametrize("format_", FORMATS)
def test_a_scale_changed_in_the_file_is_found_where_it_is(format_: str, tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    path = write(quantized, tmp_path, format_)
    edit_scale(path, "two", 1.25)
    layers = compare(path, quantized)
    assert layers.first == "two"
    assert layers.wrong[0] == "two"
    assert by_name(layers)["one"].verdict in HEALTHY
    assert by_name(layers)["two"].verdict == "differs in file"
    assert "the file differs from its spec: two (Conv2D)" in layers.sentence


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_constant_changed_in_the_file_is_found_where_it_is(
    format_: str, recipe: str, tmp_path: Path
) -> None:
    quantized = quantized_as(network(), recipe)
    path = write(quantized, tmp_path, format_)
    edit_constant(path, "three", "weight", lambda weight: weight[::-1])
    layers = compare(path, quantized)
    assert layers.wrong == ("three",)
    assert layers.first == "three"


@pytest.mark.parametrize("format_", FORMATS)
def test_a_clipped_bias_is_found_where_it_is(format_: str, tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    path = write(quantized, tmp_path, format_)
    bias = quantized.constants["two/bias"]
    clipped = replace(quantized, constants={**quantized.constants, "two/bias": np.clip(bias, -99, 99)})
    assert compare(path, clipped).wrong == ("two",)


@pytest.mark.parametrize("form", [TFLiteForm, OnnxForm])
def test_a_kernel_that_is_wrong_by_itself_is_a_kernel_bug(
    form: type[FileForm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = quantized_as(network(), "int8")
    open_operator: Any = form.open_operator

    def broken(self: FileForm, artifact: Path) -> Run:
        run = open_operator(self, artifact)

        def off(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            output: NDArray[Any] = run(inputs)
            if self.quantized.graph.output == "three":
                output = output ^ 2
            return output

        return off

    monkeypatch.setattr(form, "open_operator", broken)
    layers = compare(write(quantized, tmp_path, form.format), quantized)
    assert layers.wrong == ("three",)
    three = by_name(layers)["three"]
    assert (three.verdict, three.max_lsb) == ("kernel bug", 2)
    assert "kernel bug: three (Conv2D) differs from the reference on the same inputs" in layers.sentence


@pytest.mark.parametrize("format_", FORMATS)
def test_not_a_number_is_a_finding(format_: str, tmp_path: Path) -> None:
    quantized = quantized_as(network(), "fp32")
    path = write(quantized, tmp_path, format_)
    edit_constant(path, "two", "bias", lambda bias: bias * np.nan)
    layers = compare(path, quantized)
    # Clamps behind it may turn NaN into a number, as each runtime likes.
    assert layers.wrong[0] == "two"
    ratio = by_name(layers)["two"].as_run_db
    assert ratio is not None
    assert ratio < -1000


@pytest.mark.parametrize(
    ("format_", "io", "conversion"),
    [
        ("tflite", "int8", ConversionSettings()),
        ("tflite", "uint8", ConversionSettings(batch=None)),
        ("tflite", "float32", ConversionSettings(batch=3)),
        ("onnx", "uint8", ConversionSettings(onnx_layout="nhwc")),
        ("onnx", "int8", ConversionSettings(onnx_activations="int8", batch=None)),
        ("onnx", "float32", ConversionSettings(batch=3, opset=13)),
    ],
)
def test_files_of_every_layout_are_understood(
    format_: str, io: Any, conversion: ConversionSettings, tmp_path: Path
) -> None:
    quantized = quantized_as(network(), "int8")
    quantized = replace(quantized, spec=replace(quantized.spec, io=io))
    layers = compare(write(quantized, tmp_path, format_, conversion), quantized)
    assert_healthy(layers)
    assert len(layers.layers) == len(quantized.graph.nodes)


def test_the_tensors_of_a_saved_model_are_not_to_be_seen(tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    with pytest.raises(UsageError, match="one compiled function"):
        compare_layers(tmp_path, "savedmodel", quantized, images(quantized.graph, 1))
