"""What is particular to quantized .onnx files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from resnet_edge.converters import ConversionSettings, QuantizingConverter
from resnet_edge.engines.onnx import OnnxEngine
from resnet_edge.errors import ConversionFailedError, ModelRejectedError, UsageError
from resnet_edge.graph.execution import execute
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2D,
    GlobalAveragePool,
    MaxPool2D,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.inspection.onnx import inspect_onnx
from resnet_edge.quantization.integer import run_integer
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.readback import check
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge_converters.onnx import OnnxConverter
from tests.graph_builder import GraphBuilder, images
from tests.graphs import OPERATOR_GRAPHS
from tests.minmax import minmax

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.spec import Quantized

FOLDED = [
    name
    for name, graph in OPERATOR_GRAPHS.items()
    if not any(isinstance(node.op, BatchNorm) for node in graph.nodes)
]
"""Quantization starts from a folded graph."""

TIER_1 = [name for name in FOLDED if all(node.op.tier == 1 for node in OPERATOR_GRAPHS[name].nodes)]

LSB = 4
"""Steps of the output's scale by which an int8 result may miss the float one. Its own rounding costs half a
step; the others are the rounding of the inputs and of 8-bit weights, summed over two or three layers of a few
hundred products (2.5 at most here). A wrong zero point, axis or scale costs tens of steps."""

FUSED = {
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
}
"""ONNX Runtime's integer operators for those that compute."""

MOVERS = {"Clip", "Concat", "Flatten", "MaxPool", "NhwcMaxPool", "Pad", "Reshape", "Slice", "Transpose"}
"""Operators that take integers as they are."""


def quantize(graph: Graph, recipe: str = "int8", **options: Any) -> Quantized:
    return quantize_graph(graph, RECIPES[recipe], minmax(graph, images(graph, 8)), **options)


@cache
def quantized(name: str, recipe: str = "int8", io: Any = "float32") -> Quantized:
    return quantize(OPERATOR_GRAPHS[name], recipe, io=io)


def convert(of: Quantized, folder: Path, **settings: Any) -> Path:
    path = folder / "model.onnx"
    OnnxConverter().convert(of.graph, path, ConversionSettings(**settings), of)
    return path


def run(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with OnnxEngine(path) as engine:
        return engine.run(inputs)


def initializers(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def optimized(path: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a file, before it chooses layouts for the processor."""
    result = path.with_suffix(".optimized.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(result)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(result).graph.node)


def assert_integer_inside(counts: Counter[str]) -> None:
    """One conversion at the input, one at the output, and no float operator between."""
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (1, 1)
    assert set(counts) <= FUSED | MOVERS | {"QuantizeLinear", "DequantizeLinear"}


def steps_apart(of: Quantized, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(actual - expected).max() / of.spec.tensors[of.graph.output].scale)


def test_it_is_a_quantizing_converter() -> None:
    converter = OnnxConverter()
    assert isinstance(converter, QuantizingConverter)
    # Every built-in recipe says itself which formats have it.
    assert converter.recipes == {name for name, recipe in RECIPES.items() if "onnx" in recipe.formats}


@pytest.mark.parametrize("recipe", ["int8", "int8-per-tensor"])
@pytest.mark.parametrize("name", TIER_1)
def test_every_operator_is_fused_and_exact(name: str, recipe: str, tmp_path: Path) -> None:
    model = quantized(name, recipe)
    path = convert(model, tmp_path, batch=None)
    onnx.checker.check_model(path, full_check=True)
    check(OnnxConverter().read_back(path, model), model, where=path.name)
    assert_integer_inside(optimized(path))
    inputs = images(model.graph, 8)
    actual = run(path, inputs)
    # Both round once; only ties, in average pools above all, may fall to the other side.
    assert steps_apart(model, actual, run_integer(model, inputs)) < 1.01
    if recipe == "int8":
        assert steps_apart(model, actual, execute(model.graph, inputs)) <= LSB


@pytest.mark.parametrize("name", TIER_1)
def test_signed_activations_compute_the_same(name: str, tmp_path: Path) -> None:
    model, inputs = quantized(name), images(OPERATOR_GRAPHS[name], 8)
    path = convert(model, tmp_path, batch=None, onnx_activations="int8")
    check(OnnxConverter().read_back(path, model), model, where=path.name)
    # What ONNX Runtime leaves in float on some processors is rounded to the same steps, but not at ties; a
    # dense layer behind it makes up to two steps of one.
    assert steps_apart(model, run(path, inputs), run_integer(model, inputs)) < 2.01


@pytest.mark.parametrize("recipe", ["fp16", "int8-weights"])
@pytest.mark.parametrize("name", FOLDED)
def test_float_recipes_stay_close(name: str, recipe: str, tmp_path: Path) -> None:
    model = quantized(name, recipe)
    path = convert(model, tmp_path, batch=None)
    onnx.checker.check_model(path, full_check=True)
    check(OnnxConverter().read_back(path, model), model, where=path.name)
    inputs = images(model.graph, 8)
    expected = execute(model.graph, inputs)
    # float16 has 11 bits, and a few roundings follow each other; 8-bit weights are off by up to 1/254.
    limit = {"fp16": 2e-3, "int8-weights": 2e-2}[recipe] * max(1, np.abs(expected).max())
    np.testing.assert_allclose(run(path, inputs), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("name", FOLDED)
def test_integer_weights_leave_the_arithmetic_float(name: str, tmp_path: Path) -> None:
    model, inputs = quantized(name, "int8-weights"), images(OPERATOR_GRAPHS[name], 8)
    actual, expected = run(convert(model, tmp_path, batch=None), inputs), run_integer(model, inputs)
    # Both sum float32 products with the same weights, in different orders.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("recipe", ["int8", "int8-weights"])
@pytest.mark.parametrize("opset", [13, 18, 21])
def test_other_operator_sets(opset: int, recipe: str, tmp_path: Path) -> None:
    for name in ("residual_block_option_a", "softmax_of_map", "max_pool_asymmetric", "relu6_of_map"):
        model, inputs = quantized(name, recipe), images(OPERATOR_GRAPHS[name], 2)
        (tmp_path / name).mkdir()
        path = convert(model, tmp_path / name, opset=opset, batch=2)
        onnx.checker.check_model(path, full_check=True)
        if recipe == "int8":
            assert_integer_inside(optimized(path))
            assert steps_apart(model, run(path, inputs), run_integer(model, inputs)) < 1.01


@pytest.mark.parametrize("recipe", ["int8", "int8-per-tensor", "int8-weights"])
def test_integers_need_opset_13(recipe: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opset 12 is not supported for integers") as caught:
        convert(quantized("add", recipe), tmp_path, opset=12)
    assert caught.value.allowed.startswith("13 to ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [11, 12])
def test_halves_do_with_older_operator_sets(opset: int, tmp_path: Path) -> None:
    path = convert(quantized("upsample_bilinear", "fp16"), tmp_path, opset=opset)
    onnx.checker.check_model(path, full_check=True)


def test_16_bit_activations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'int16x8' cannot be written as ONNX"):
        convert(quantized("add", "int16x8"), tmp_path)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_integer_input_and_output(io: Any, layout: Any, tmp_path: Path) -> None:
    for name in ("residual_block_option_a", "pad", "softmax_output", "reshape_output"):
        model, inputs = quantized(name, io=io), images(OPERATOR_GRAPHS[name], 3)
        (tmp_path / name).mkdir()
        path = convert(model, tmp_path / name, onnx_activations=io, onnx_layout=layout)
        check(OnnxConverter().read_back(path, model), model, where=path.name)
        report = inspect_onnx(path)
        assert [tensor.dtype for tensor in (*report.inputs, *report.outputs)] == [io, io]
        if io == "uint8":
            assert set(optimized(path)) <= FUSED | MOVERS
        assert steps_apart(model, run(path, inputs), run_integer(model, inputs)) < 1.01


@pytest.mark.parametrize(("io", "activations"), [("int8", "uint8"), ("uint8", "int8")])
def test_integer_io_is_of_the_activations_type(io: str, activations: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="type of its activations"):
        convert(quantized("add", io=io), tmp_path, onnx_activations=activations)


def test_integer_io_without_its_meaning_is_refused(tmp_path: Path) -> None:
    path = convert(quantized("add", io="uint8"), tmp_path)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(ModelRejectedError, match="what the integers of 'image' stand for"):
        OnnxEngine(path)


def kept_in_float() -> Quantized:
    builder = GraphBuilder((8, 8, 3))
    x = builder.conv(builder.image, 4, activation=Activation.RELU, name="first")
    y = builder.conv(x, 4, activation=Activation.RELU6, name="middle")
    x = builder.add(Add(), x, y, name="sum")
    x = builder.dense(builder.add(GlobalAveragePool(), builder.conv(x, 4, name="last")), name="head")
    return quantize(builder.graph(x), overrides=["middle=float"])


def test_a_node_kept_float_has_conversions_around_it(tmp_path: Path) -> None:
    model = kept_in_float()
    path = convert(model, tmp_path, batch=None)
    onnx.checker.check_model(path, full_check=True)
    check(OnnxConverter().read_back(path, model), model, where=path.name)
    assert {"middle/weight", "first/weight_int8", "last/bias_int32"} <= set(initializers(path))
    counts = optimized(path)
    assert (counts["FusedConv"], counts["QLinearConv"], counts["QGemm"]) == (1, 2, 1)
    inputs = images(model.graph, 4)
    assert steps_apart(model, run(path, inputs), run_integer(model, inputs)) < 1.01


def test_a_layer_beyond_float16_stays_float32(tmp_path: Path) -> None:
    builder = GraphBuilder((6, 6, 3))
    x = builder.conv(builder.image, 4, name="before")
    weight, bias = builder.normal(3, 3, 4, 4, fan_in=36), np.array([1e5, 0, 0, 0], np.float32)
    x = builder.add(Conv2D(weight=weight, bias=bias), x, name="large")
    x = builder.add(Conv2D(weight=weight * np.float32(1e-4), bias=builder.normal(4)), x, name="after")
    model = quantize(builder.classified(x), "fp16")
    assert "large" in model.spec.kept_float
    path = convert(model, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    check(OnnxConverter().read_back(path, model), model, where=path.name)
    stored = initializers(path)
    assert stored["large/weight"].dtype == np.float32
    assert stored["before/weight_float16"].dtype == np.float16
    inputs = images(model.graph, 2)
    expected = execute(model.graph, inputs)
    limit = 2e-3 * max(1, np.abs(expected).max())  # float16's rounding, as above
    np.testing.assert_allclose(run(path, inputs), expected, rtol=0, atol=limit)


def test_activations_that_the_range_does_not_end_are_clamped(tmp_path: Path) -> None:
    builder = GraphBuilder((6, 6, 3))
    signed = builder.conv(builder.image, 4, name="signed")
    positive = builder.conv(builder.image, 4, activation=Activation.RELU, name="positive")
    small = builder.conv(builder.image, 4, activation=Activation.RELU6, name="small")
    # One scale for all three: zero is inside the range, and 6 is not its end.
    model = quantize(builder.classified(builder.add(Concat(), signed, positive, small)))
    path = convert(model, tmp_path, batch=None)
    counts, stored = optimized(path), initializers(path)
    assert_integer_inside(counts)
    assert counts["Clip"] == 2
    assert "signed/smallest" not in stored
    zero_point = model.spec.tensors["positive"].zero_point + 128
    assert stored["positive/smallest"] == zero_point
    assert stored["positive/largest"] == 255
    assert stored["small/largest"] == model.spec.tensors["small"].qmax + 128
    inputs = images(model.graph, 8)
    assert steps_apart(model, run(path, inputs), run_integer(model, inputs)) < 1.01


def test_activations_that_the_range_ends_leave_no_trace(tmp_path: Path) -> None:
    assert "Clip" not in optimized(convert(quantized("conv_relu"), tmp_path))


@pytest.mark.parametrize("zero_point", [0, -128, 5])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_zeros_in_front_of_a_max_pool_stay_zeros(activations: str, zero_point: int, tmp_path: Path) -> None:
    builder = GraphBuilder((6, 6, 3))
    x = builder.conv(builder.image, 3, (1, 1))
    x = builder.add(Pad(padding=Padding(top=2, left=1)), x)
    x = builder.add(MaxPool2D(size=(3, 3), strides=(2, 2)), x)
    model = quantize(builder.graph(builder.add(Reshape(shape=(27,)), x)))
    # Where the stored zero point is 0, a runtime could take the border for the pool's own, which never wins.
    tensors = {
        name: quant if name == "image" else replace(quant, zero_point=zero_point)
        for name, quant in model.spec.tensors.items()
    }
    model = replace(model, spec=replace(model.spec, tensors=tensors))
    path = convert(model, tmp_path, batch=None, onnx_activations=activations)
    inputs = -5 + images(model.graph, 8)
    assert steps_apart(model, run(path, inputs), run_integer(model, inputs)) < 1.01


def test_names_of_tensors_and_constants(tmp_path: Path) -> None:
    path = convert(quantized("residual_block"), tmp_path)
    graph = onnx.load(path).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    assert types["stem"] == onnx.TensorProto.UINT8
    assert types["stem/float32"] == types["probabilities"] == onnx.TensorProto.FLOAT
    assert {name.removeprefix("stem/") for name in initializers(path) if name.startswith("stem/")} == {
        "weight_int8",
        "scale",
        "zero_point",
        "bias_int32",
        "bias_scale",
        "output_scale",
        "output_zero_point",
    }
    # Types and shapes of all tensors are in the file.
    assert set(types) == {output for node in graph.node for output in node.output}


def test_a_name_that_a_constant_would_take_stays_the_nodes(tmp_path: Path) -> None:
    builder = GraphBuilder((4, 4, 2))
    x = builder.conv(builder.image, 3, name="conv")
    for name in ("conv/weight_int8", "conv/scale", "conv/output_scale", "conv/float32"):
        x = builder.conv(x, 3, name=name)
    model = quantize(builder.classified(x))
    path = convert(model, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    assert {"conv/weight_int8_2", "conv/scale_2", "conv/output_scale_2"} <= set(initializers(path))
    check(OnnxConverter().read_back(path, model), model, where=path.name)


def test_scales_are_the_specs_to_the_bit(tmp_path: Path) -> None:
    model = quantized("residual_block")
    stored = initializers(convert(model, tmp_path))
    weight, source = model.spec.constants["dense/weight"], model.spec.tensors["pool"]
    np.testing.assert_array_equal(stored["dense/scale"], np.array(weight.scales, np.float32))
    np.testing.assert_array_equal(
        stored["dense/bias_scale"], np.float32(source.scale) * np.array(weight.scales, np.float32)
    )
    assert stored["pool/output_zero_point"] == source.zero_point + 128


def test_another_scale_behind_an_operator_that_moves_integers_is_refused(tmp_path: Path) -> None:
    model = quantized("slice_crop")
    (name,) = (node.name for node in model.graph.nodes if isinstance(node.op, Slice))
    wrong = replace(model.spec.tensors[name], scale=model.spec.tensors[name].scale * 2)
    spec = replace(model.spec, tensors={**model.spec.tensors, name: wrong})
    with pytest.raises(ConversionFailedError, match="changes no scale") as caught:
        convert(replace(model, spec=spec), tmp_path)
    assert caught.value.where == name


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_inspection_tells_what_is_integer(activations: str, tmp_path: Path) -> None:
    model = quantized("residual_block_option_a")
    report = inspect_onnx(convert(model, tmp_path, onnx_activations=activations))
    assert report.int8_mac_share == 1
    assert (report.parameters, report.macs) == (model.graph.parameters, model.graph.macs)
    assert any("x86 leaves some in float" in note for note in report.notes) == (activations == "int8")


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second = (convert(quantized("residual_block"), tmp_path / folder) for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
