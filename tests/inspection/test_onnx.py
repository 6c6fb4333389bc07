from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from resnet_edge.converters import ConversionSettings
from resnet_edge.errors import ModelRejectedError
from resnet_edge.inspection.onnx import inspect_onnx
from resnet_edge.inspection.report import OperatorCount, Quantization, TensorInfo
from resnet_edge_converters.onnx import OnnxConverter
from tests.graph_builder import images
from tests.graphs import OPERATOR_GRAPHS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resnet_edge.graph import Graph
    from resnet_edge.inspection.report import FileReport

FLOAT, INT8, UINT8 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8


def converted(graph: Graph, folder: Path, **settings: Any) -> Path:
    path = folder / "ours.onnx"
    OnnxConverter().convert(graph, path, ConversionSettings(**settings))
    return path


def another_tools(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: dict[str, list[int | str | None]],
    *,
    dtype: int = FLOAT,
    output_dtype: int = FLOAT,
    **model: Any,
) -> Path:
    """A hand-made file; its one output is the last node's."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], output_dtype, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    arguments = {"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8} | model
    path = folder / "other.onnx"
    onnx.save(helper.make_model(graph, **arguments), path)
    return path


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_our_own_files(name: str, tmp_path: Path) -> None:
    graph = OPERATOR_GRAPHS[name]
    report = inspect_onnx(converted(graph, tmp_path, batch=2))
    omitted = sum(
        bias.size
        for node in graph.nodes
        for role, bias in node.op.weights().items()
        if role == "bias" and not bias.any()
    )
    assert report.parameters == graph.parameters - omitted
    assert report.macs == graph.macs
    assert report.int8_mac_share == (0 if graph.macs else None)
    assert report.notes == ()


def test_a_report_in_full(tmp_path: Path) -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    path = converted(graph, tmp_path, batch=None, metadata={"labels": "a\nb"})
    report = inspect_onnx(path)
    assert (report.format, report.size) == ("onnx", path.stat().st_size)
    assert report.version == "opset 17, IR 8"
    assert report.producer.startswith("resnet-edge ")
    assert report.inputs == (TensorInfo(name="image", shape=("N", 3, 9, 7), dtype="float32"),)
    assert report.outputs == (TensorInfo(name="probabilities", shape=("N", graph.classes), dtype="float32"),)
    assert report.operators[:2] == (OperatorCount(name="Conv", count=4), OperatorCount(name="Relu", count=3))
    assert report.metadata == {"labels": "a\nb", "layout": "nchw"}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FileReport]:
    """Reports on the residual block as ONNX Runtime's own quantizer writes it."""
    from onnxruntime import quantization as tool

    folder = tmp_path_factory.mktemp("quantized")
    graph = OPERATOR_GRAPHS["residual_block"]
    source = converted(graph, folder)

    class Reader(tool.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images(graph, 2))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image[None].transpose(0, 3, 1, 2)}

    def report(kind: str) -> FileReport:
        path = folder / f"{kind}.onnx"
        if kind == "dynamic":
            tool.quantize_dynamic(source, path)
        else:
            style = tool.QuantFormat[kind]
            tool.quantize_static(source, path, Reader(), quant_format=style, per_channel=True)
        return inspect_onnx(path)

    return report


@pytest.mark.parametrize("kind", ["QDQ", "QOperator", "dynamic"])
def test_int8_of_another_tool(kind: str, quantized: Callable[[str], FileReport]) -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    report = quantized(kind)
    assert report.macs == graph.macs
    assert report.parameters == graph.parameters
    assert report.int8_mac_share == 1
    assert report.producer.startswith("onnx.quantize")


def test_weights_alone_in_8_bits_are_noted(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["w_float"], axis=0),
        helper.make_node("Transpose", ["w_float"], ["w_turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w_turned"], ["y"]),
    ]
    constants = {"w": zeros(4, 8, dtype=np.int8), "scale": zeros(4), "zero": zeros(4, dtype=np.int8)}
    report = inspect_onnx(another_tools(tmp_path, nodes, constants, {"x": ["N", 8]}))
    assert (report.macs, report.parameters, report.int8_mac_share) == (32, 32, 0)
    assert report.notes == ("1 operator(s) have 8-bit weights and float features",)


def test_integer_interface_shows_its_quantization(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "scale", "zero"], ["real"]),
        helper.make_node("QuantizeLinear", ["real", "scale", "zero"], ["quantized"]),
    ]
    constants: dict[str, np.ndarray] = {"scale": np.array(0.5, np.float32), "zero": np.array(128, np.uint8)}
    path = another_tools(tmp_path, nodes, constants, {"image": [1, 4]}, dtype=UINT8, output_dtype=UINT8)
    report = inspect_onnx(path)
    quantization = Quantization(scales=(0.5,), zero_points=(128,))
    assert report.inputs == (
        TensorInfo(name="image", shape=(1, 4), dtype="uint8", quantization=quantization),
    )
    assert report.outputs[0].quantization == quantization
    assert (report.macs, report.int8_mac_share, report.parameters) == (0, None, 0)


@pytest.mark.parametrize(
    ("node", "constants", "shape", "macs"),
    [
        # Every input value meets (out / groups, kh, kw) weights.
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            [(3, 5, 2, 2)],
            [1, 3, 4, 4],
            960,
        ),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=2), [(4, 2, 3, 3)], ["N", 4, 5, 5], 648),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), [(7, 5)], [3, 5], 35),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [(5, 7)], [3, 5], 35),
        # Rows that are not images count: here each of the two has nine.
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [(5, 7)], [2, 9, 5], 9 * 35),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [(5,)], ["N", 5], 5),
        (helper.make_node("Conv", ["x", "w"], ["y"]), [(4, 3, 3, 3)], [1, 3, "H", "W"], None),
    ],
)
def test_multiply_accumulates(
    node: onnx.NodeProto,
    constants: list[tuple[int, ...]],
    shape: list[int | str | None],
    macs: int | None,
    tmp_path: Path,
) -> None:
    arrays = {name: zeros(*size) for name, size in zip("wb", constants, strict=False)}
    report = inspect_onnx(another_tools(tmp_path, [node], arrays, {"x": shape}))
    assert report.macs == macs
    assert report.parameters == np.prod(constants[0])


def test_old_files_list_their_constants_among_the_inputs(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    inputs: dict[str, list[int | str | None]] = {"x": [1, 3, 4, 4], "w": [10, 3, 3, 3]}
    path = another_tools(
        tmp_path,
        [node],
        {"w": zeros(10, 3, 3, 3)},
        inputs,
        ir_version=3,
        opset_imports=[helper.make_opsetid("", 8)],
    )
    report = inspect_onnx(path)
    assert [tensor.name for tensor in report.inputs] == ["x"]
    assert (report.parameters, report.macs) == (270, 1080)


def test_constants_made_by_operators_count(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(zeros(10, 3, 3, 3), "any")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    report = inspect_onnx(another_tools(tmp_path, nodes, {}, {"x": [1, 3, 4, 4]}))
    assert (report.parameters, report.macs) == (270, 1080)


def test_shapes_axes_and_scalars_are_no_parameters(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["a"]),
        helper.make_node("Resize", ["a", "", "factors"], ["b"], mode="nearest"),
        helper.make_node("Reshape", ["b", "shape"], ["y"]),
    ]
    constants: dict[str, Any] = {
        "low": np.float32(0),
        "high": np.float32(6),
        "factors": np.array([1, 1, 2, 2], np.float32),
        "shape": np.array([1, -1]),
    }
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    assert inspect_onnx(another_tools(tmp_path, nodes, arrays, {"x": [1, 3, 4, 4]})).parameters == 0


def test_operators_outside_the_standard_are_marked(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Crop", ["x"], ["a"], domain="acme"),
        helper.make_node("Conv", ["a", "w"], ["y"]),
    ]
    opsets = [helper.make_opsetid("acme", 1), helper.make_opsetid("", 17)]
    constants = {"w": zeros(2, 3, 3, 3)}
    path = another_tools(tmp_path, nodes, constants, {"x": [1, 3, 4, 4]}, opset_imports=opsets)
    report = inspect_onnx(path)
    assert report.version == "opset 17, acme 1, IR 8"
    assert report.operators == (
        OperatorCount(name="Conv", count=1),
        OperatorCount(name="acme.Crop", count=1, custom=True),
    )
    # Nothing says what shape it gives.
    assert report.macs is None
    assert report.notes == ("needs a runtime with the operators acme.Crop",)


def test_where_shapes_cannot_be_worked_out_the_report_says_so(tmp_path: Path) -> None:
    node = helper.make_node("Crop", ["x"], ["y"], domain="acme")  # and no operator set of that name
    report = inspect_onnx(another_tools(tmp_path, [node], {}, {"x": [1, 3, 4, 4]}))
    assert report.notes[0].startswith("the shapes inside the model could not be worked out: ")


def test_what_onnx_runtimes_optimizer_writes(tmp_path: Path) -> None:
    import onnxruntime

    graph = OPERATOR_GRAPHS["residual_block"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(converted(graph, tmp_path), options, providers=["CPUExecutionProvider"])
    report = inspect_onnx(tmp_path / "optimized.onnx")
    assert "com.microsoft.FusedConv" in {operator.name for operator in report.operators}
    assert report.macs == graph.macs


def test_bodies_of_branches_are_looked_into(tmp_path: Path) -> None:
    def body(name: str) -> onnx.GraphProto:
        weight = numpy_helper.from_array(zeros(8, 2), f"w_{name}")
        node = helper.make_node("MatMul", ["x", weight.name], [f"y_{name}"])
        output = helper.make_tensor_value_info(f"y_{name}", FLOAT, [3, 2])
        return helper.make_graph([node], name, [], [output], [weight])

    node = helper.make_node("If", ["choice"], ["y"], then_branch=body("then"), else_branch=body("else"))
    choice = {"choice": np.array(True)}
    report = inspect_onnx(another_tools(tmp_path, [node], choice, {"x": [3, 8]}))
    assert [(operator.name, operator.count) for operator in report.operators] == [("MatMul", 2), ("If", 1)]
    assert report.parameters == 32
    assert report.notes == ("holds loops or branches: the operators in their bodies are counted once",)


def test_functions_of_the_model_are_looked_into(tmp_path: Path) -> None:
    function = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["c"],
        [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    node = helper.make_node("Twice", ["x"], ["y"], domain="own")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path = another_tools(tmp_path, [node], {}, {"x": [1, 4]}, functions=[function], opset_imports=opsets)
    report = inspect_onnx(path)
    assert report.operators == (OperatorCount(name="Relu", count=2),)


def with_external_data(folder: Path, location: str) -> Path:
    """A file whose weights are said to be at ``location``."""
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = another_tools(folder, [node], {"w": zeros(10, 3, 3, 3)}, {"x": [1, 3, 4, 4]})
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_measured_and_not_read(tmp_path: Path) -> None:
    path = with_external_data(tmp_path, "weights.bin")
    report = inspect_onnx(path)
    assert report.notes == ("weights are missing: there is no weights.bin beside the file",)
    (tmp_path / "weights.bin").write_bytes(bytes(10))  # too short to be read as what it should be
    report = inspect_onnx(path)
    assert report.notes == ("weights are in weights.bin, 10 bytes",)
    assert report.size == path.stat().st_size + 10
    assert (report.parameters, report.macs) == (270, 1080)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_external_data_is_not_followed_out_of_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(1080))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to("../secret.bin")
    path = with_external_data(folder, location)
    report = inspect_onnx(path)
    assert report.size == path.stat().st_size
    assert report.notes == (f"weights are said to be outside the file's folder, in {location}: not followed",)


@pytest.mark.parametrize("damage", ["empty", "truncated", "random", "text", "missing", "folder", "weights"])
def test_what_is_no_onnx_file_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    match damage:
        case "empty":
            path.touch()
        case "truncated":
            path.write_bytes(converted(OPERATOR_GRAPHS["residual_block"], tmp_path).read_bytes()[:-100])
        case "random":
            path.write_bytes(random.Random(0).randbytes(5000))
        case "text":
            path.write_text("weights\n")
        case "folder":
            path.mkdir()
        case "weights":
            path.write_bytes(numpy_helper.from_array(zeros(4), "w").SerializeToString())
    with pytest.raises(ModelRejectedError, match="cannot be read as an ONNX model") as caught:
        inspect_onnx(path)
    assert caught.value.where == str(path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return converted(
        OPERATOR_GRAPHS["squeeze_and_excitation"], tmp_path_factory.mktemp("intact")
    ).read_bytes()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_reported_but_never_a_crash(
    data: st.DataObject, intact: bytes, tmp_path: Path
) -> None:
    damaged = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(intact) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(damaged)
    with contextlib.suppress(ModelRejectedError):
        inspect_onnx(path)


def test_needs_neither_tensorflow_nor_a_runtime(tmp_path: Path) -> None:
    path = converted(OPERATOR_GRAPHS["add"], tmp_path)
    script = (
        "import sys, pathlib; from resnet_edge.inspection.onnx import inspect_onnx;"
        "inspect_onnx(pathlib.Path(sys.argv[1]));"
        "assert not {'tensorflow', 'keras', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(path)], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
