"""What is particular to the TFLite converter and its engine."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings

from resnet_edge.converters import ConversionSettings
from resnet_edge.engines.tflite import TFLiteEngine
from resnet_edge.errors import ConversionFailedError, DependencyMissingError, ModelRejectedError
from resnet_edge.graph import Graph, Node
from resnet_edge.graph.execution import execute
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Conv2D,
    Dense,
    GlobalAveragePool,
    GlobalMaxPool,
    Input,
    MaxPool2D,
    Upsample2D,
)
from resnet_edge.inspection.tflite import inspect_tflite
from resnet_edge.passes import run_passes
from resnet_edge_converters.tflite import TFLiteConverter
from resnet_edge_converters.tflite_versions import minimum_runtime
from tests.graph_builder import GraphBuilder
from tests.graphs import OPERATOR_GRAPHS, images, residual_graphs
from tests.shared_data import shared_file

if TYPE_CHECKING:
    from pathlib import Path

OUTSIDE_XNNPACK = {
    "max_pool_asymmetric",  # PADV2
    "max_pool_stride3_leaves_rest",  # a stride larger than the window
    "max_pool_symmetric",  # PADV2
    "residual_block_option_a",  # STRIDED_SLICE with strides
    "slice_channels",
    "slice_strided",
    "slice_strided_offset",
    "upsample_nearest",
}
"""Graphs with an operator that XNNPACK leaves to LiteRT's own kernels."""


def convert(graph: Graph, folder: Path, **options: Any) -> Path:
    destination = folder / "model.tflite"
    TFLiteConverter().convert(graph, destination, ConversionSettings(**options))
    return destination


def load(path: Path) -> Any:
    """The file through LiteRT's generated classes."""
    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def operator_names(model: Any) -> list[str]:
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def constants(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Every stored tensor by name."""
    found = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None:
            dtype = np.int32 if tensor.type == schema.TensorType.INT32 else np.float32
            found[tensor.name.decode()] = data.view(dtype).reshape(tensor.shape)
    return found


class TestOperators:
    @pytest.mark.parametrize("name", sorted(OPERATOR_GRAPHS.keys() - OUTSIDE_XNNPACK))
    @pytest.mark.parametrize("batch", [1, None])
    def test_xnnpack_runs_the_whole_graph(self, name: str, batch: int | None, tmp_path: Path) -> None:
        artifact = convert(OPERATOR_GRAPHS[name], tmp_path, batch=batch)
        with TFLiteEngine(artifact) as engine:
            interpreter = engine._interpreter
            delegates = [
                operator for operator in interpreter._get_ops_details() if operator["op_name"] == "DELEGATE"
            ]
            # An operator outside would cut the graph in two, or its beginning or end off.
            assert len(delegates) == 1
            assert interpreter.get_input_details()[0]["index"] in delegates[0]["inputs"]
            assert interpreter.get_output_details()[0]["index"] in delegates[0]["outputs"]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("conv_3x3_valid", ["CONV_2D"]),
            ("conv_3x3_same", ["CONV_2D"]),
            ("conv_stride2_same_even", ["CONV_2D"]),
            ("conv_stride2_same_odd", ["CONV_2D"]),
            ("conv_stride_leaves_rest", ["CONV_2D"]),
            ("conv_stride2_symmetric", ["PAD", "CONV_2D"]),
            ("conv_groups2", ["CONV_2D"]),
            ("depthwise_asymmetric_padding", ["PAD", "DEPTHWISE_CONV_2D"]),
            ("max_pool_symmetric", ["CONV_2D", "PADV2", "MAX_POOL_2D"]),
            ("average_pool_same_even", ["CONV_2D", "AVERAGE_POOL_2D"]),
            ("average_pool_asymmetric", ["CONV_2D", "PAD", "AVERAGE_POOL_2D", "MUL"]),
            ("global_average_pool", ["CONV_2D", "MEAN"]),
            ("swish_of_map", ["CONV_2D", "ADD", "LOGISTIC", "MUL"]),
            ("hard_sigmoid_of_map", ["CONV_2D", "ADD", "ADD", "MUL"]),
            ("batch_norm", ["CONV_2D", "MUL", "ADD", "RELU"]),
        ],
    )
    def test_becomes_these_operators(self, name: str, expected: list[str], tmp_path: Path) -> None:
        written = operator_names(load(convert(OPERATOR_GRAPHS[name], tmp_path)))
        assert written[: len(expected)] == expected

    def test_rows_behind_the_last_window_do_not_cost_a_pad(self, tmp_path: Path) -> None:
        builder = GraphBuilder((8, 8, 3))
        # SAME is (0, 1) here; the second row below is never looked at.
        surplus = Padding(bottom=2, right=1)
        graph = builder.classified(builder.conv(builder.image, 4, strides=(2, 2), padding=surplus))
        artifact = convert(graph, tmp_path)
        assert operator_names(load(artifact))[0] == "CONV_2D"
        with TFLiteEngine(artifact) as engine:
            np.testing.assert_allclose(engine.run(images(graph)), execute(graph, images(graph)), atol=1e-5)

    def test_pads_a_max_pool_behind_a_relu_with_zeros(self, tmp_path: Path) -> None:
        builder = GraphBuilder((8, 8, 3))
        padding = Padding(top=1, bottom=1, left=1, right=1)
        pool = MaxPool2D(size=(3, 3), strides=(2, 2), padding=padding)
        relu = builder.conv(builder.image, 4, activation=Activation.RELU)
        graph = builder.classified(builder.add(pool, relu))
        artifact = convert(graph, tmp_path)
        assert operator_names(load(artifact))[:3] == ["CONV_2D", "PAD", "MAX_POOL_2D"]
        with TFLiteEngine(artifact) as engine:
            np.testing.assert_allclose(engine.run(images(graph)), execute(graph, images(graph)), atol=1e-5)

    @pytest.mark.parametrize("factor", [3, 7, 41])
    def test_nearest_upsampling_takes_the_right_pixel(self, factor: int, tmp_path: Path) -> None:
        builder = GraphBuilder((5, 4, 2))
        # The enlarged map itself is the output: every pixel is compared.
        graph = builder.graph(builder.add(Upsample2D(size=(factor, factor)), builder.image))
        with TFLiteEngine(convert(graph, tmp_path)) as engine:
            np.testing.assert_array_equal(engine.run(images(graph)), execute(graph, images(graph)))

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(graph=residual_graphs())
    def test_random_residual_networks_compute_the_same(
        self, graph: Graph, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folded = run_passes(graph).graph
        expected = execute(folded, images(folded))
        with TFLiteEngine(convert(folded, tmp_path_factory.mktemp("residual"))) as engine:
            # Summation order, as in the contract; through a dozen layers it adds up. A batch norm of small
            # variance may also blow it up before a ReLU6 hides how far: not more than it does to the image.
            nudged = execute(folded, images(folded) * np.float32(1 + 1e-5))
            limit = max(1e-4, 1e-4 * np.abs(expected).max(), np.abs(nudged - expected).max())
            np.testing.assert_allclose(engine.run(images(folded)), expected, rtol=0, atol=limit)


class TestFile:
    def test_tensors_are_named_like_nodes(self, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS["residual_block"]
        model = load(convert(graph, tmp_path))
        names = {tensor.name.decode() for tensor in model.subgraphs[0].tensors}
        assert {graph.tensor_name(node.name) for node in graph.nodes} <= names
        assert {"stage1/block.0/conv-1/weight", "stage1/block.0/conv-1/bias"} <= names

    def test_weights_are_stored_output_channels_first(self, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS["residual_block"]
        stored = constants(load(convert(graph, tmp_path)))
        conv, dense = graph.by_name["stem"].op, graph.by_name["dense"].op
        assert isinstance(conv, Conv2D)
        assert isinstance(dense, Dense)
        np.testing.assert_array_equal(stored["stem/weight"], conv.weight.transpose(3, 0, 1, 2))
        np.testing.assert_array_equal(stored["stem/bias"], conv.bias)
        np.testing.assert_array_equal(stored["dense/weight"], dense.weight.T)

    def test_a_layer_may_be_named_like_the_weight_of_another(self, tmp_path: Path) -> None:
        builder = GraphBuilder((6, 6, 3))
        inner = builder.conv(builder.image, 4, name="conv")
        outer = builder.conv(inner, 4, name="conv/weight")
        graph = builder.classified(outer)
        names = [tensor.name for tensor in load(convert(graph, tmp_path)).subgraphs[0].tensors]
        assert len(set(names)) == len(names)
        assert {b"conv", b"conv/weight", b"conv/weight_2", b"conv/weight/weight"} <= set(names)

    def test_equal_values_are_stored_once(self, tmp_path: Path) -> None:
        builder = GraphBuilder((8, 8, 4))
        padding = Padding(top=1, bottom=1, left=1, right=1)
        x = builder.conv(builder.image, 4, strides=(2, 2), padding=padding, bias=False)
        x = builder.conv(x, 4, strides=(2, 2), padding=Padding(top=2, bottom=0, left=1, right=1), bias=False)
        x = builder.conv(x, 4, strides=(2, 2), padding=padding, bias=False)
        model = load(convert(builder.classified(x), tmp_path))
        tensors = model.subgraphs[0].tensors
        assert sum(tensor.name.endswith(b"/paddings") for tensor in tensors) == 2
        # Biases keep a tensor and a name each, but not the same zeros.
        biases = [tensor for tensor in tensors if tensor.name.endswith(b"/bias")][:3]
        assert len({tensor.name for tensor in biases}) == 3
        assert len({tensor.buffer for tensor in biases}) == 1

    def test_constants_are_aligned(self, tmp_path: Path) -> None:
        content = convert(OPERATOR_GRAPHS["squeeze_and_excitation"], tmp_path).read_bytes()
        whole = np.frombuffer(content, np.uint8)
        model = schema.Model.GetRootAs(content, 0)
        vectors = [model.Buffers(index) for index in range(model.BuffersLength())]
        starts = [
            vector.DataAsNumpy().ctypes.data - whole.ctypes.data for vector in vectors if vector.DataLength()
        ]
        assert len(starts) > 5
        assert all(start % 16 == 0 for start in starts)

    def test_says_who_wrote_it_and_what_it_needs(self, tmp_path: Path) -> None:
        artifact = convert(OPERATOR_GRAPHS["conv_groups2"], tmp_path)
        assert artifact.read_bytes()[4:8] == b"TFL3"
        model = load(artifact)
        assert model.version == 3
        assert b"resnet-edge" in model.description
        assert inspect_tflite(artifact).metadata["min_runtime_version"] == "2.9.0"
        assert model.buffers[0].data is None

    @pytest.mark.parametrize(
        ("name", "operator", "version"),
        [
            ("conv_3x3_same", schema.BuiltinOperator.CONV_2D, 1),
            ("conv_groups2", schema.BuiltinOperator.CONV_2D, 6),
            ("conv_dilation2_same", schema.BuiltinOperator.CONV_2D, 1),
            ("depthwise_3x3_same", schema.BuiltinOperator.DEPTHWISE_CONV_2D, 1),
            ("depthwise_dilation2", schema.BuiltinOperator.DEPTHWISE_CONV_2D, 2),
            ("upsample_bilinear", schema.BuiltinOperator.RESIZE_BILINEAR, 3),
            ("hard_swish_of_map", schema.BuiltinOperator.HARD_SWISH, 1),
        ],
    )
    def test_operator_codes_suit_old_and_new_runtimes(
        self, name: str, operator: int, version: int, tmp_path: Path
    ) -> None:
        codes = load(convert(OPERATOR_GRAPHS[name], tmp_path)).operatorCodes
        (code,) = (code for code in codes if code.builtinCode == operator)
        assert code.version == version
        assert code.deprecatedBuiltinCode == operator

    def test_the_newest_operator_decides_the_runtime(self) -> None:
        # As numbers: 1.14 is newer than 1.5, and 2.9 older than 2.10.
        assert minimum_runtime({"CONV_2D": 1, "LOGISTIC": 1}) == "1.14.0"
        assert minimum_runtime({"RESIZE_BILINEAR": 3, "CONV_2D": 6, "TANH": 1}) == "2.9.0"

    @pytest.mark.parametrize(
        ("batch", "shape"), [(1, (1, 6, 5, 4)), (3, (3, 6, 5, 4)), (None, (None, 6, 5, 4))]
    )
    def test_batch(self, batch: int | None, shape: tuple[int | None, ...], tmp_path: Path) -> None:
        report = inspect_tflite(convert(OPERATOR_GRAPHS["add"], tmp_path, batch=batch))
        assert report.inputs[0].shape == shape
        assert report.outputs[0].shape == (batch, 5)

    def test_runs_by_its_signature(self, tmp_path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        graph = OPERATOR_GRAPHS["residual_block"]
        interpreter = Interpreter(model_path=str(convert(graph, tmp_path, batch=None)))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}
        }
        given = images(graph, 4)
        outputs = interpreter.get_signature_runner("serving_default")(image=given)
        np.testing.assert_allclose(outputs["probabilities"], execute(graph, given), atol=1e-6)

    def test_refuses_what_does_not_fit_into_a_flatbuffer(self, tmp_path: Path) -> None:
        # Broadcast: two gigabytes to look at, a few bytes in memory.
        weight = np.broadcast_to(np.float32(1), (2**14, 2**15))
        nodes = (
            Node(name="image", op=Input(shape=(1, 1, 2**14))),
            Node(name="pool", op=GlobalAveragePool(), inputs=("image",)),
            Node(name="dense", op=Dense(weight=weight, bias=np.zeros(2**15, np.float32)), inputs=("pool",)),
        )
        with pytest.raises(ConversionFailedError, match="2,048 MiB"):
            convert(Graph(name="huge", nodes=nodes, output="dense"), tmp_path)
        assert not list(tmp_path.iterdir())

    def test_needs_memory_for_one_copy(self, tmp_path: Path) -> None:
        builder = GraphBuilder((4, 4, 512))
        x = builder.image
        for _ in range(4):
            x = builder.conv(x, 512)
        graph = builder.classified(x)
        tracemalloc.start()
        artifact = convert(graph, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # The file itself, and a quarter of a megabyte for tables, names and first imports.
        assert peak < artifact.stat().st_size + 2**18

    def test_neither_writing_nor_running_imports_tensorflow(self, tmp_path: Path) -> None:
        subprocess.run([sys.executable, "-c", _CONVERT_AND_RUN, str(tmp_path / "m.tflite")], check=True)


_CONVERT_AND_RUN = """
import sys
from pathlib import Path
from resnet_edge.converters import ConversionSettings
from resnet_edge.inspection.tflite import inspect_tflite
from resnet_edge_converters.tflite import TFLiteConverter
from tests.graphs import OPERATOR_GRAPHS, images
graph, path = OPERATOR_GRAPHS["residual_block"], Path(sys.argv[1])
TFLiteConverter().convert(graph, path, ConversionSettings())
with TFLiteConverter().open(path) as engine:
    engine.run(images(graph))
inspect_tflite(path)
heavy = {"tensorflow", "keras", "onnx", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""


class TestEngine:
    def test_runs_a_real_model_of_another_tool(self) -> None:
        artifact = shared_file("mlperf_tiny_resnet8_float.tflite")
        data = np.load(shared_file("cifar10_test500.npz"))
        with TFLiteEngine(artifact) as engine:
            outputs = engine.run(data["images"].astype(np.float32))
        assert outputs.shape == (500, 10)
        # 89.0 %, as measured with TensorFlow's own interpreter; a wrong batch order would give 10 %.
        assert np.mean(outputs.argmax(axis=1) == data["labels"]) == pytest.approx(0.89, abs=0.002)

    def test_says_so_where_the_integers_have_no_scale(self, tmp_path: Path) -> None:
        builder = GraphBuilder((4, 4, 3))
        artifact = convert(builder.graph(builder.add(GlobalMaxPool(), builder.image)), tmp_path)
        model = load(artifact)
        for tensor in (model.subgraphs[0].tensors[0], model.subgraphs[0].tensors[-1]):
            tensor.type = schema.TensorType.INT8
        written = flatbuffers.Builder()
        written.Finish(model.Pack(written), file_identifier=b"TFL3")
        artifact.write_bytes(written.Output())
        with pytest.raises(ModelRejectedError, match=r"(?s)one image.*int8"):
            TFLiteEngine(artifact)

    def test_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        with pytest.raises(DependencyMissingError, match="pip install ai-edge-litert"):
            TFLiteEngine(tmp_path / "model.tflite")

    def test_keeps_standard_error_clean(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with TFLiteEngine(convert(OPERATOR_GRAPHS["conv_relu"], tmp_path)) as engine:
            engine.run(images(OPERATOR_GRAPHS["conv_relu"]))
        assert capfd.readouterr().err == ""
