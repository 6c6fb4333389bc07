"""What is particular to quantized .tflite files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.engines.tflite import TFLiteEngine
from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph.execution import execute
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import AveragePool2D, BatchNorm, GlobalAveragePool
from resnet_edge.inspection.tflite import inspect_tflite
from resnet_edge.inspection.tflite_file import read_tflite
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.readback import check
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge_converters.tflite import TFLiteConverter
from tests.converters.tflite_files import convert, quantized
from tests.graph_builder import GraphBuilder
from tests.graphs import OPERATOR_GRAPHS, images
from tests.minmax import minmax

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.inspection.tflite_file import Operator
    from resnet_edge.quantization.spec import Quantized

FOLDED = sorted(
    name
    for name, graph in OPERATOR_GRAPHS.items()
    if not any(isinstance(node.op, BatchNorm) for node in graph.nodes)
)
"""Quantization starts from a folded graph."""

TIER_1 = [name for name in FOLDED if all(node.op.tier == 1 for node in OPERATOR_GRAPHS[name].nodes)]

FLOAT_RECIPES = ("fp16", "int8-weights")

OUTSIDE_XNNPACK_IN_INT8 = {
    "average_pool_2x2",  # AVERAGE_POOL_2D: XNNPACK takes it in float only
    "average_pool_asymmetric",
    "average_pool_same_even",
    "average_pool_same_odd",
    "flatten_2x2_dense",
    "max_pool_asymmetric",  # PADV2
    "max_pool_stride3_leaves_rest",  # a stride larger than the window
    "max_pool_symmetric",  # PADV2
    "relu6_of_map",  # RELU6 as an operator of its own, which only a ReLU that cannot be fused is
    "relu_of_map",
    "relu_output",
    "residual_block",  # SOFTMAX
    "residual_block_option_a",  # STRIDED_SLICE with strides
    "slice_channels",
    "slice_strided",
    "slice_strided_offset",
    "softmax_of_map",  # SOFTMAX
    "softmax_output",
    "two_consumers",  # RELU
}
"""Graphs with an operator whose int8 form XNNPACK leaves to LiteRT's own kernels."""

LSB = 5
"""Steps of the output's scale by which an int8 result may miss the float one. One step is the output's own
rounding at most; the others are the rounding of the inputs and of 8-bit weights, summed over two or three
layers of a few hundred products. A wrong zero point, axis or scale costs tens of steps."""


def operators(path: Path) -> tuple[Operator, ...]:
    return read_tflite(path).subgraphs[0].operators


def names(path: Path) -> list[str]:
    return [operator.name for operator in operators(path)]


def is_delegated_whole(engine: TFLiteEngine) -> bool:
    interpreter = engine._interpreter
    delegates = [item for item in interpreter._get_ops_details() if item["op_name"] == "DELEGATE"]
    return (
        len(delegates) == 1
        and interpreter.get_input_details()[0]["index"] in delegates[0]["inputs"]
        and interpreter.get_output_details()[0]["index"] in delegates[0]["outputs"]
    )


class TestInt8:
    @pytest.mark.parametrize("name", TIER_1)
    @pytest.mark.parametrize("recipe", ["int8", "int8-per-tensor"])
    def test_every_operator_is_close_to_float(self, name: str, recipe: str, tmp_path: Path) -> None:
        model = quantized(name, recipe)
        given = images(model.graph, 16)
        artifact = convert(model, tmp_path)
        check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)
        with TFLiteEngine(artifact) as engine:
            error = np.abs(engine.run(given) - execute(model.graph, given)).max()
            assert is_delegated_whole(engine) == (name not in OUTSIDE_XNNPACK_IN_INT8)
        assert error <= LSB * model.spec.tensors[model.graph.output].scale

    @pytest.mark.parametrize("name", TIER_1)
    def test_computes_with_integers_only(self, name: str, tmp_path: Path) -> None:
        first, *inner, last = operators(convert(quantized(name, "int8"), tmp_path))
        assert (first.name, last.name) == ("QUANTIZE", "DEQUANTIZE")
        assert not {"QUANTIZE", "DEQUANTIZE"} & {operator.name for operator in inner}
        for operator in inner:
            tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
            assert {tensor.dtype for tensor in tensors} <= {"int8", "int32"}, operator.name

    def test_looks_all_integer_from_outside(self, tmp_path: Path) -> None:
        report = inspect_tflite(convert(quantized("residual_block", "int8"), tmp_path))
        assert report.int8_mac_share == 1.0
        assert report.float_operators == ()

    @pytest.mark.parametrize(
        ("name", "constant", "axis"),
        [
            ("conv_groups2", "head/weight_int8", 0),
            ("depthwise_multiplier2", "depthwiseconv2d_1/weight_int8", 3),
            ("dense_relu_dense_relu6", "dense_2/weight_int8", 0),
        ],
    )
    def test_weights_have_a_scale_per_output_channel(
        self, name: str, constant: str, axis: int, tmp_path: Path
    ) -> None:
        (main,) = read_tflite(convert(quantized(name, "int8"), tmp_path)).subgraphs
        (weight,) = (tensor for tensor in main.tensors if tensor.name == constant)
        assert weight.quantization is not None
        assert weight.quantization.axis == axis
        assert len(weight.quantization.scales) == weight.shape[axis]
        assert set(weight.quantization.zero_points) == {0}

    @pytest.mark.parametrize("batch", [3, None])
    def test_takes_batches(self, batch: int | None, tmp_path: Path) -> None:
        model = quantized("residual_block_option_a", "int8")
        given = images(model.graph, 16)
        with TFLiteEngine(convert(model, tmp_path)) as engine:
            expected = engine.run(given)
        with TFLiteEngine(convert(model, tmp_path, batch=batch)) as engine:
            np.testing.assert_array_equal(engine.run(given), expected)

    def test_writes_the_same_bytes(self, tmp_path: Path) -> None:
        model = quantized("squeeze_and_excitation", "int8")
        first = convert(model, tmp_path).read_bytes()
        assert convert(model, tmp_path).read_bytes() == first

    @pytest.mark.parametrize(
        ("name", "operator", "version", "runtime"),
        [
            ("conv_relu", "CONV_2D", 3, "1.14.0"),
            ("conv_groups2", "CONV_2D", 6, "2.9.0"),
            ("depthwise_3x3_same", "DEPTHWISE_CONV_2D", 3, "1.14.0"),
            # A dense layer per channel: older runtimes would take one scale for all of it, silently.
            ("dense_relu_dense_relu6", "FULLY_CONNECTED", 12, "2.17.0"),
            ("slice_crop", "STRIDED_SLICE", 2, "1.14.0"),
        ],
    )
    def test_asks_for_the_runtime_that_it_needs(
        self, name: str, operator: str, version: int, runtime: str, tmp_path: Path
    ) -> None:
        artifact = convert(quantized(name, "int8"), tmp_path)
        codes = schema.ModelT.InitFromPackedBuf(artifact.read_bytes(), 0).operatorCodes
        versions = {code.builtinCode: code.version for code in codes}
        assert versions[getattr(schema.BuiltinOperator, operator)] == version
        assert inspect_tflite(artifact).metadata["min_runtime_version"] == runtime

    def test_padding_an_average_pool_costs_one_more_rounding(self, tmp_path: Path) -> None:
        artifact = convert(quantized("average_pool_asymmetric", "int8"), tmp_path)
        assert names(artifact)[2:5] == ["PAD", "AVERAGE_POOL_2D", "MUL"]

    def test_refuses_an_average_whose_factors_have_no_common_step(self, tmp_path: Path) -> None:
        builder = GraphBuilder((8, 8, 3))
        # Windows with 1 to 5 rows and columns inside: factors of 25/3 and 25/4 need steps of 25/12.
        op = AveragePool2D(size=(5, 5), strides=(1, 1), padding=Padding(top=4, left=4))
        graph = builder.classified(builder.add(op, builder.image, name="corner"))
        model = quantize_graph(graph, RECIPES["int8"], minmax(graph, images(graph)))
        with pytest.raises(ConversionFailedError, match="corner=float"):
            convert(model, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_zero_points_are_stored_once(self, tmp_path: Path) -> None:
        builder = GraphBuilder((1, 1, 2048))
        x = builder.image
        for _ in range(8):
            x = builder.depthwise(x, (1, 1))
        graph = builder.graph(builder.add(GlobalAveragePool(), x))
        model = quantize_graph(graph, RECIPES["int8"], minmax(graph, images(graph)))
        artifact = convert(model, tmp_path)
        # A channel has a weight (1 byte), a bias (4) and a scale of each (8), but no zero points (16) of its
        # own; the rest are tables.
        assert artifact.stat().st_size < 8 * 2048 * (1 + 4 + 8) + 2048 * 8 + 10_000
        assert inspect_tflite(artifact).int8_mac_share == 1.0

    def test_refuses_a_spec_that_changes_a_scale_where_no_kernel_can(self, tmp_path: Path) -> None:
        from dataclasses import replace

        model = quantized("max_pool_2x2", "int8")
        pool = next(name for name in model.spec.tensors if name.startswith("maxpool"))
        other = replace(model.spec.tensors[pool], scale=0.5)
        spec = replace(model.spec, tensors={**model.spec.tensors, pool: other})
        with pytest.raises(ConversionFailedError, match=pool):
            convert(replace(model, spec=spec), tmp_path)
        assert not list(tmp_path.iterdir())


class TestBorder:
    @pytest.mark.parametrize(("io", "offset"), [("int8", 0), ("uint8", 128)])
    @pytest.mark.parametrize("name", ["residual_block", "reshape_output", "concat_itself"])
    def test_takes_and_gives_integers(self, name: str, io: str, offset: int, tmp_path: Path) -> None:
        model = quantized(name, "int8", io)
        artifact = convert(model, tmp_path)
        check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)
        report = inspect_tflite(artifact)
        for tensor, node in ((report.inputs[0], "image"), (report.outputs[0], model.graph.output)):
            quant = model.spec.tensors[node]
            assert tensor.dtype == io
            assert tensor.quantization is not None
            assert tensor.quantization.scales == (quant.scale,)
            assert tensor.quantization.zero_points == (quant.zero_point + offset,)
        assert names(artifact).count("QUANTIZE") == (2 if io == "uint8" else 0)
        given = images(model.graph, 16)
        with TFLiteEngine(artifact) as engine:
            actual = engine.run(given)
        with TFLiteEngine(convert(quantized(name, "int8"), tmp_path)) as engine:
            # The same integers inside, and the same rounding at the border.
            np.testing.assert_array_equal(actual, engine.run(given))

    def test_names_do_not_depend_on_the_type(self, tmp_path: Path) -> None:
        for io in ("float32", "int8", "uint8"):
            report = inspect_tflite(convert(quantized("residual_block", "int8", io), tmp_path))
            assert (report.inputs[0].name, report.outputs[0].name) == ("image", "probabilities")


class TestKeptFloat:
    def overridden(self, name: str, pattern: str) -> Quantized:
        graph = OPERATOR_GRAPHS[name]
        statistics = minmax(graph, images(graph, 16))
        return quantize_graph(graph, RECIPES["int8"], statistics, overrides=[f"{pattern}=float"])

    @pytest.mark.parametrize(
        ("name", "pattern"),
        [
            ("residual_block", "stem"),
            ("residual_block", "stage1/block.0/conv-1"),
            ("residual_block", "stage1/block.0/shortcut"),
            ("residual_block", "dense"),
            ("residual_block", "softmax"),
            ("swish_of_map", "elementwise_3"),
            ("subtract", "subtract_5"),
        ],
    )
    def test_computes_in_float_between_conversions(self, name: str, pattern: str, tmp_path: Path) -> None:
        model = self.overridden(name, pattern)
        artifact = convert(model, tmp_path)
        check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)
        report = inspect_tflite(artifact)
        assert report.float_operators
        assert not any("quantized again" in note for note in report.notes)
        given = images(model.graph, 16)
        with TFLiteEngine(artifact) as engine:
            error = np.abs(engine.run(given) - execute(model.graph, given)).max()
        assert error <= LSB * (np.ptp(execute(model.graph, given)) / 255)


class TestInt16x8:
    @pytest.mark.parametrize("name", TIER_1)
    def test_every_operator_is_close_to_float(self, name: str, tmp_path: Path) -> None:
        model = quantized(name, "int16x8")
        given = images(model.graph, 16)
        artifact = convert(model, tmp_path)
        check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)
        expected = execute(model.graph, given)
        with TFLiteEngine(artifact) as engine:
            error = np.abs(engine.run(given) - expected).max()
        # Weights have 8 bits: half a step in 127 each, which is 0.4 %, and averages out over a window.
        assert error <= 0.02 * np.abs(expected).max()

    def test_activations_have_16_bits_and_biases_64(self, tmp_path: Path) -> None:
        _, *inner, _ = operators(convert(quantized("residual_block", "int16x8"), tmp_path))
        for operator in inner:
            types = [tensor.dtype for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
            assert types[0] == types[-1] == "int16"
            if operator.name in ("CONV_2D", "FULLY_CONNECTED"):
                assert types[1:3] == ["int8", "int64"]


class TestFloatArithmetic:
    @pytest.mark.parametrize("name", FOLDED)
    @pytest.mark.parametrize(("recipe", "limit"), [("fp16", 2e-3), ("int8-weights", 0.04)])
    def test_every_operator_is_close_to_float(
        self, name: str, recipe: str, limit: float, tmp_path: Path
    ) -> None:
        model = quantized(name, recipe)
        given = images(model.graph, 16)
        artifact = convert(model, tmp_path)
        check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)
        expected = execute(model.graph, given)
        with TFLiteEngine(artifact) as engine:
            error = np.abs(engine.run(given) - expected).max()
        # Constants of 11 significant bits, half a step of 2**-11 each; of 8 bits, with features that the
        # hybrid kernels round to 8 bits as well. Both through up to three layers.
        assert error <= limit * max(1.0, np.abs(expected).max())

    @pytest.mark.parametrize("name", ["residual_block", "squeeze_and_excitation", "depthwise_multiplier2"])
    @pytest.mark.parametrize("recipe", FLOAT_RECIPES)
    def test_xnnpack_runs_the_whole_graph(self, name: str, recipe: str, tmp_path: Path) -> None:
        with TFLiteEngine(convert(quantized(name, recipe), tmp_path)) as engine:
            assert is_delegated_whole(engine)

    def test_fp16_halves_the_constants(self, tmp_path: Path) -> None:
        stored = {
            operator.inputs[0].dtype
            for operator in operators(convert(quantized("residual_block", "fp16"), tmp_path))
            if operator.name == "DEQUANTIZE" and operator.inputs[0] is not None
        }
        assert stored == {"float16"}

    def test_int8_weights_need_kernels_that_quantize_features(self, tmp_path: Path) -> None:
        artifact = convert(quantized("residual_block", "int8-weights"), tmp_path)
        assert not {"QUANTIZE", "DEQUANTIZE"} & set(names(artifact))
        assert any("dynamic range" in note for note in inspect_tflite(artifact).notes)

    def test_int8_depthwise_weights_are_unpacked_for_the_float_kernel(self, tmp_path: Path) -> None:
        artifact = convert(quantized("depthwise_multiplier2", "int8-weights"), tmp_path)
        assert names(artifact)[:2] == ["DEQUANTIZE", "DEPTHWISE_CONV_2D"]
