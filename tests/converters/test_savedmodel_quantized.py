"""Quantized SavedModels: what they compute, what they hold, and that changing that is noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from resnet_edge.converters import ConversionSettings
from resnet_edge.engines.savedmodel import METADATA_FILE, SIGNATURE, SavedModelEngine
from resnet_edge.errors import ConversionFailedError, ModelRejectedError
from resnet_edge.graph.execution import execute, execute_all, execute_operator, stream
from resnet_edge.graph.importing import import_keras
from resnet_edge.graph.operators import AveragePool2D
from resnet_edge.models.source import open_source
from resnet_edge.passes import run_passes
from resnet_edge.pipeline import ExportOptions
from resnet_edge.quantization.integer import run_integer
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.readback import check
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.quantization.statistics import Statistics
from resnet_edge_converters.savedmodel import SavedModelConverter
from resnet_edge_converters.savedmodel_constants import checkpoint_keys
from tests.graph_builder import GraphBuilder
from tests.graphs import OPERATOR_GRAPHS, images
from tests.shared_data import shared_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.operators import Operator
    from resnet_edge.quantization.spec import Quantized

SIMULATED = (
    "conv_stride2_same_odd",
    "conv_groups2",
    "conv_relu6",
    "depthwise_multiplier2",
    "depthwise_asymmetric_padding",
    "max_pool_symmetric",
    "average_pool_asymmetric",
    "relu6_of_map",
    "softmax_output",
    "sigmoid_output",
    "joins_of_vectors",
    "concat_three",
    "flatten_2x2_dense",
    "pad_map_and_channels",
    "residual_block",
    "residual_block_option_a",
    "squeeze_and_excitation",
)
"""Graphs for every tier-1 operator and every path of the converter. Tracing, saving and loading one takes 0.6
seconds, so the graphs that differ in geometry alone are left to the float converter's tests: the operators
are the same functions."""

TIE = 1.01
"""Steps of the output: float32 sums in another order may put a value that lies between two integers on the
other one. No graph here is deep enough for such a step to grow. The hundredth is for float32 itself."""

FEW = 0.05
"""Share of outputs that may be off by that step: next to never does a value lie between two integers. It does
behind an average pool: a quarter of a sum of steps is a half every fourth time."""


def calibrated(graph: Graph, inputs: NDArray[np.float32]) -> Statistics:
    """Smallest and largest values, and channel means."""
    tensors = execute_all(graph, inputs)
    ranges = {
        name: (float(min(0, tensor.min())), float(max(0, tensor.max()))) for name, tensor in tensors.items()
    }
    means = {name: tensor.mean(axis=tuple(range(tensor.ndim - 1))) for name, tensor in tensors.items()}
    return Statistics(ranges=ranges, observed=ranges, channel_means=means, images=len(inputs))


def quantize(graph: Graph, recipe: str, **options: object) -> Quantized:
    statistics = calibrated(graph, images(graph, 16))
    return quantize_graph(graph, RECIPES[recipe], statistics, **options)  # type: ignore[arg-type]


@cache
def residual_block(recipe: str) -> Quantized:
    return quantize(OPERATOR_GRAPHS["residual_block"], recipe)


def converted(quantized: Quantized, folder: Path) -> Path:
    path = folder / "model-savedmodel"
    SavedModelConverter().convert(quantized.graph, path, ConversionSettings(batch=None), quantized)
    return path


def run(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with SavedModelConverter().open(path) as engine:
        return engine.run(inputs)


def simulated(quantized: Quantized, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The graph in NumPy with stored constants, every tensor of the spec quantized and dequantized."""

    def compute(node: Node, sources: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        tensor = execute_operator(_stored(quantized, node), *sources)
        quant = quantized.spec.tensors.get(node.name)
        if quant is None:
            return tensor
        integers = np.rint(tensor / np.float32(quant.scale)) + quant.zero_point
        clamped = np.clip(integers, quant.qmin, quant.qmax)
        return np.asarray((clamped - quant.zero_point) * np.float32(quant.scale), np.float32)

    *_, (_, output) = stream(quantized.graph, inputs, compute)  # type: ignore[arg-type]
    return output


def _stored(quantized: Quantized, node: Node) -> Operator:
    """The operator with the numbers that its stored constants stand for."""
    values = {}
    for role, weight in node.op.weights().items():
        quant = quantized.spec.constants.get(f"{node.name}/{role}")
        if quant is not None:
            stored = quantized.constants[f"{node.name}/{role}"].astype(np.float64)
            channels = stored.reshape(-1, len(quant.scales)) if quant.axis is not None else stored
            values[role] = (channels * (quant.scales or 1)).reshape(weight.shape).astype(np.float32)
    return replace(node.op, **values)  # type: ignore[type-var]


class TestComputes:
    @pytest.mark.parametrize("name", SIMULATED)
    def test_int8_is_simulated(self, name: str, tmp_path: Path) -> None:
        quantized = quantize(OPERATOR_GRAPHS[name], "int8")
        # Three times what calibration saw: the limits of the type and of fused activations are reached.
        inputs = 3 * images(quantized.graph, 8, seed=1)
        output = run(converted(quantized, tmp_path), inputs)
        step = quantized.spec.tensors[quantized.graph.output].scale
        averages = any(isinstance(node.op, AveragePool2D) for node in quantized.graph.nodes)
        for expected in (simulated(quantized, inputs), run_integer(quantized, inputs)):
            off = np.abs(output - expected) / step
            # Means of four integers are halves every fourth time: several inputs of a Dense layer behind the
            # pool may then be one step off, which its sum can turn into two.
            assert off.max() <= (2 * TIE if averages else TIE)
            assert (off > 0.5).mean() <= FEW or averages

    @pytest.mark.parametrize("recipe", ["int8-per-tensor", "int16x8"])
    def test_other_integers_are_simulated(self, recipe: str, tmp_path: Path) -> None:
        quantized = residual_block(recipe)
        inputs = images(quantized.graph, 4, seed=1)
        output = run(converted(quantized, tmp_path), inputs)
        step = quantized.spec.tensors[quantized.graph.output].scale
        # With 16 bits a step is smaller, and more values of the layers before lie near the middle of two.
        steps = 4 if recipe == "int16x8" else TIE
        assert np.abs(output - simulated(quantized, inputs)).max() <= steps * step
        assert np.abs(output - execute(quantized.graph, inputs)).max() > 0

    @pytest.mark.parametrize("recipe", ["fp16", "int8-weights"])
    def test_float_with_small_constants(self, recipe: str, tmp_path: Path) -> None:
        quantized = residual_block(recipe)
        inputs = images(quantized.graph, 4, seed=1)
        output = run(converted(quantized, tmp_path), inputs)
        # Nothing is rounded in between: float32 sums in another order.
        np.testing.assert_allclose(output, simulated(quantized, inputs), rtol=0, atol=1e-5)
        assert np.abs(output - execute(quantized.graph, inputs)).max() > 1e-5

    def test_nodes_kept_float_stay_float(self, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS["residual_block"]
        quantized = quantize(graph, "int8", overrides=("stage1/block.0/conv-1=float",))
        assert "stage1/block.0/conv-1" in quantized.spec.kept_float
        inputs = images(graph, 4, seed=1)
        output = run(converted(quantized, tmp_path), inputs)
        step = quantized.spec.tensors[graph.output].scale
        np.testing.assert_allclose(output, simulated(quantized, inputs), rtol=0, atol=TIE * step)


class TestCheckpoint:
    def test_holds_integers_under_predictable_names(self, tmp_path: Path) -> None:
        quantized = residual_block("int8")
        reader = tf.train.load_checkpoint(str(converted(quantized, tmp_path) / "variables" / "variables"))
        key = "stage1/block..0/conv-1/{}/.ATTRIBUTES/VARIABLE_VALUE"
        types = {
            role: reader.get_tensor(key.format(role)).dtype.name
            for role in ("weight_int8", "bias_int32", "scale", "activation")
        }
        assert list(types.values()) == ["int8", "int32", "float32", "float32"]
        weight = reader.get_tensor(key.format("weight_int8"))
        np.testing.assert_array_equal(weight, quantized.constants["stage1/block.0/conv-1/weight"])
        # No float copy of a weight or bias beside the integers.
        stored = [reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "ATTR" in name]
        floats = sum(array.size for array in stored if array.dtype == np.float32)
        scales = [constant.scales for name, constant in quantized.spec.constants.items() if "weight" in name]
        assert floats == 2 * len(quantized.spec.tensors) + sum(map(len, scales))

    @pytest.mark.parametrize("recipe", sorted(SavedModelConverter.recipes))
    def test_reads_back_what_the_spec_says(self, recipe: str, tmp_path: Path) -> None:
        quantized = residual_block(recipe)
        path = converted(quantized, tmp_path)
        content = SavedModelConverter().read_back(path, quantized)
        check(content, quantized, where=str(path))
        assert content.constants.keys() == quantized.spec.constants.keys()
        assert content.tensors.keys() == quantized.spec.tensors.keys()

    def test_reads_back_depthwise_scales_and_taken_names(self, tmp_path: Path) -> None:
        builder = GraphBuilder((4, 4, 2))
        x = builder.depthwise(builder.image, multiplier=2, name="conv")
        for name in ("conv/scale", "variables", "/"):
            x = builder.conv(x, 2, name=name)
        quantized = quantize(builder.classified(x), "int8")
        path = converted(quantized, tmp_path)
        assert "conv/scale_/scale/.ATTRIBUTES/VARIABLE_VALUE" in checkpoint_keys(quantized).values()
        check(SavedModelConverter().read_back(path, quantized), quantized, where=str(path))

    @pytest.mark.parametrize(
        ("role", "place", "said"),
        [
            ("weight_int8", 0, "the values of 'stage1/block.0/conv-1/weight' differ"),
            ("bias_int32", 0, "the values of 'stage1/block.0/conv-1/bias' differ"),
            ("scale", 0, "the scales of 'stage1/block.0/conv-1/weight' differ"),
            ("activation", 0, "scale of 'stage1/block.0/conv-1' is"),
            ("activation", 1, "zero point of 'stage1/block.0/conv-1' is"),
        ],
    )
    def test_a_changed_number_is_named(self, role: str, place: int, said: str, tmp_path: Path) -> None:
        quantized = residual_block("int8")
        path = converted(quantized, tmp_path)
        inputs = 3 * images(quantized.graph, 64, seed=1)
        before = run(path, inputs)
        change(path, quantized, "stage1/block.0/conv-1", role, place)
        with pytest.raises(ConversionFailedError) as caught:
            check(SavedModelConverter().read_back(path, quantized), quantized, where=str(path))
        assert said in caught.value.found
        # What is read back is what computes: no second copy is folded into the graph.
        assert np.abs(run(path, inputs) - before).max() > 0

    def test_a_zero_point_that_is_no_integer_is_refused(self, tmp_path: Path) -> None:
        quantized = residual_block("int8")
        scaled = replace(quantized.spec.tensors["stem"], zero_point=-127.5)  # type: ignore[arg-type]
        spec = replace(quantized.spec, tensors={**quantized.spec.tensors, "stem": scaled})
        path = converted(replace(quantized, spec=spec), tmp_path)
        with pytest.raises(ModelRejectedError, match="stem/activation"):
            SavedModelConverter().read_back(path, quantized)

    def test_a_checkpoint_of_another_graph_lacks_names(self, tmp_path: Path) -> None:
        path = converted(quantize(OPERATOR_GRAPHS["conv_relu"], "int8"), tmp_path)
        quantized = residual_block("int8")
        with pytest.raises(ConversionFailedError, match="'stem' is missing"):
            check(SavedModelConverter().read_back(path, quantized), quantized, where=str(path))

    def test_a_damaged_checkpoint_is_refused(self, tmp_path: Path) -> None:
        quantized = residual_block("int8")
        path = converted(quantized, tmp_path)
        (path / "variables" / "variables.index").write_bytes(b"no index")
        with pytest.raises(ModelRejectedError, match="cannot be read"):
            SavedModelConverter().read_back(path, quantized)


def change(path: Path, quantized: Quantized, node: str, role: str, place: int) -> None:
    """Double one number of a variable in the file, or flip a bit of it where it is an integer."""
    prefix = str(path / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    key = checkpoint_keys(quantized)[node, role]
    changed = np.array(tensors[key])
    bit = 64 if changed.dtype == np.int8 else 1 << 14  # a step of a bias is small
    changed.flat[place] = (
        changed.flat[place] * 2 if changed.dtype == np.float32 else changed.flat[place] ^ bit
    )
    tensors[key] = changed
    names = list(tensors)
    values = [tf.convert_to_tensor(tensors[name]) for name in names]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)


class TestBorder:
    @pytest.mark.parametrize(("io", "offset"), [("int8", 0), ("uint8", 128)])
    def test_the_signature_has_the_type(self, io: str, offset: int, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS["residual_block"]
        quantized = quantize(graph, "int8", io=io)
        path = converted(quantized, tmp_path)
        signature = tf.saved_model.load(str(path)).signatures[SIGNATURE]
        (image,) = signature.structured_input_signature[1].values()
        (output,) = signature.structured_outputs.values()
        assert (image.dtype.name, output.dtype.name) == (io, io)
        form = json.loads((path / METADATA_FILE).read_text("utf-8"))["output"]
        assert form == {"dtype": io, "scale": 1 / 256, "zero_point": offset - 128}
        # Real numbers in and out of the engine: as with a float signature.
        inputs = images(graph, 4, seed=1)
        expected = simulated(quantized, inputs)
        np.testing.assert_allclose(run(path, inputs), expected, rtol=0, atol=TIE / 256)

    def test_a_float_end_cannot_be_int8(self, tmp_path: Path) -> None:
        quantized = residual_block("int8-weights")
        refused = replace(quantized, spec=replace(quantized.spec, io="int8"))
        with pytest.raises(ConversionFailedError, match="--io float32"):
            converted(refused, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_integers_without_a_meaning_are_refused(self, tmp_path: Path) -> None:
        path = converted(quantize(OPERATOR_GRAPHS["conv_relu"], "int8", io="uint8"), tmp_path)
        (path / METADATA_FILE).unlink()
        with pytest.raises(ModelRejectedError, match="what the integers of its input stand for"):
            SavedModelEngine(path)


@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
def test_trained_networks_classify_as_in_float(name: str, tmp_path: Path) -> None:
    if name == "resnet8":
        source = open_source(shared_file("mlperf_tiny_resnet8.h5"), ExportOptions())
    else:
        weights = str(shared_file("cifar10_resnet20.safetensors"))
        source = open_source(name, ExportOptions(weights=weights))
    graph = run_passes(import_keras(source.model)).graph
    with np.load(shared_file("cifar10_train1000.npz")) as train:
        statistics = calibrated(graph, source.preprocessing.apply(train["images"][:50]))
    with np.load(shared_file("cifar10_test500.npz")) as test:
        inputs = source.preprocessing.apply(test["images"][:100])
    quantized = quantize_graph(graph, RECIPES["int8"], statistics)
    classes = run(converted(quantized, tmp_path), inputs).argmax(1)
    # Rounding alone changes 1 to 3 % of the classes, a wrong scale or zero point changes many more.
    assert (classes == execute(graph, inputs).argmax(1)).mean() >= 0.96
    # Against the integers only near-ties can differ.
    assert (classes == run_integer(quantized, inputs).argmax(1)).mean() >= 0.98


@pytest.mark.parametrize("recipe", ["int8", "int8-weights"])
def test_a_weight_is_dequantized_when_it_is_needed(recipe: str, tmp_path: Path) -> None:
    """All at once they would take as much memory as float32 weights do."""
    path = converted(residual_block(recipe), tmp_path)
    model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    nodes = [
        node for function in model.meta_graphs[0].graph_def.library.function for node in function.node_def
    ]
    int8 = tf.int8.as_datatype_enum
    weights = [node for node in nodes if node.op == "ReadVariableOp" and node.attr["dtype"].type == int8]
    assert weights
    assert all(any(name.startswith("^") for name in node.input) for node in weights)
