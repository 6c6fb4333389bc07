"""Looking into .tflite files: ours, other tools', and broken ones."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.converters import ConversionSettings
from resnet_edge.errors import ModelRejectedError
from resnet_edge.inspection import OperatorCount, Quantization, TensorInfo
from resnet_edge.inspection.tflite import inspect_tflite
from resnet_edge_converters.tflite import TFLiteConverter
from resnet_edge_converters.tflite_flatbuffer import ModelBuilder
from tests.graphs import OPERATOR_GRAPHS
from tests.shared_data import shared_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RESNET8_MACS = (
    32 * 32 * 9 * (3 * 16 + 16 * 16 + 16 * 16)
    + 16 * 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    + 8 * 8 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    + 64 * 10
)
"""MLPerf Tiny's ResNet-8, stage by stage: 3x3 convolutions, and 1x1 shortcuts in the last two stages."""

RESNET8_PARAMETERS = (
    9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    + 16 * 32
    + 32 * 64
    + 64 * 10
    + 3 * 16
    + 3 * 32
    + 3 * 64
    + 10
)
"""Its weights and biases once batch norm is folded."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor of a handmade file."""

    shape: Sequence[int]
    dtype: str = "FLOAT32"
    constant: bool = False
    signature: Sequence[int] | None = None


def write_file(
    path: Path,
    operator: str,
    tensors: Sequence[Stored],
    *,
    custom: str | None = None,
    metadata: dict[str, bytes] | None = None,
    subgraphs: int = 1,
) -> Path:
    """One operator that takes all tensors but the last, and computes that one."""
    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.customCode = custom
    model.operatorCodes = [code]
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = [1, 2, 3, 4]
    model.metadata = []
    for name, content in (metadata or {}).items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        model.metadata.append(entry)
        buffer = schema.BufferT()
        buffer.data = list(content)
        model.buffers.append(buffer)
    model.subgraphs = [_PackedOnce(_subgraph(tensors))] * subgraphs
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())
    return path


class _PackedOnce:
    """A table that several lists, or several places of one, refer to."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.offset: Any = None

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - as the generated classes call it
        if self.offset is None:
            self.offset = self.table.Pack(builder)
        return self.offset


def _subgraph(tensors: Sequence[Stored]) -> Any:
    subgraph = schema.SubGraphT()
    subgraph.tensors = []
    for index, stored in enumerate(tensors):
        tensor = schema.TensorT()
        tensor.name = f"t{index}"
        tensor.shape = list(stored.shape)
        tensor.shapeSignature = None if stored.signature is None else list(stored.signature)
        tensor.type = getattr(schema.TensorType, stored.dtype)
        tensor.buffer = int(stored.constant)
        subgraph.tensors.append(tensor)
    operator = schema.OperatorT()
    operator.inputs = list(range(len(tensors) - 1))
    operator.outputs = [len(tensors) - 1]
    subgraph.operators = [operator]
    subgraph.inputs, subgraph.outputs = [0], [len(tensors) - 1]
    return subgraph


class TestOtherToolsFiles:
    def test_float_resnet8(self) -> None:
        path = shared_file("mlperf_tiny_resnet8_float.tflite")
        report = inspect_tflite(path)
        assert report.format == "tflite"
        assert report.size == path.stat().st_size
        assert report.version == "schema 3"
        assert report.producer == "MLIR Converted."
        assert report.inputs == (TensorInfo(name="input_1", shape=(None, 32, 32, 3), dtype="float32"),)
        assert report.outputs == (TensorInfo(name="Identity", shape=(None, 10), dtype="float32"),)
        assert report.operators[:2] == (
            OperatorCount(name="CONV_2D", count=9),
            OperatorCount(name="ADD", count=3),
        )
        assert report.parameters == RESNET8_PARAMETERS
        assert report.macs == RESNET8_MACS
        assert report.int8_mac_share == 0
        assert report.metadata == {"min_runtime_version": "1.5.0"}
        assert report.notes == ("has no signature: the names are those of the tensors",)

    def test_int8_resnet8(self) -> None:
        report = inspect_tflite(shared_file("mlperf_tiny_resnet8_int8.tflite"))
        pixels = Quantization(scales=(1.0,), zero_points=(-128,))
        assert report.inputs[0].dtype == "int8"
        assert report.inputs[0].quantization == pixels
        assert report.outputs[0].quantization == Quantization(scales=(1 / 256,), zero_points=(-128,))
        assert report.parameters == RESNET8_PARAMETERS
        assert report.macs == RESNET8_MACS
        assert report.int8_mac_share == 1


class TestOurFiles:
    # Written as something else than what the graph counts: batch norm as two constants instead of four, an
    # average pool's correction.
    @pytest.mark.parametrize(
        "name",
        sorted(
            OPERATOR_GRAPHS.keys()
            - {"batch_norm", "batch_norm_of_image", "batch_norm_of_vector", "average_pool_asymmetric"}
        ),
    )
    def test_counts_what_the_graph_counts(self, name: str, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS[name]
        path = tmp_path / "model.tflite"
        TFLiteConverter().convert(graph, path, ConversionSettings(batch=3))
        report = inspect_tflite(path)
        assert report.macs == graph.macs
        assert report.parameters == graph.parameters
        assert report.inputs[0].name == "image"
        assert report.notes == ()


class TestArithmetic:
    @pytest.mark.parametrize(
        ("operator", "tensors", "macs"),
        [
            ("CONV_2D", [(2, 9, 9, 4), (8, 3, 3, 2), (2, 7, 7, 8)], 7 * 7 * 8 * 3 * 3 * 2),
            ("DEPTHWISE_CONV_2D", [(2, 9, 9, 4), (1, 3, 3, 8), (2, 7, 7, 8)], 7 * 7 * 8 * 3 * 3),
            ("CONV_3D", [(1, 5, 5, 5, 2), (3, 3, 3, 2, 4), (1, 3, 3, 3, 4)], 27 * 4 * 27 * 2),
            ("FULLY_CONNECTED", [(2, 7), (5, 7), (2, 5)], 35),
            ("BATCH_MATMUL", [(2, 6, 7), (2, 7, 5), (2, 6, 5)], 6 * 7 * 5),
            ("BATCH_MATMUL", [(2, 7, 6), (2, 7, 5), (2, 6, 5)], 6 * 7 * 5),
        ],
    )
    def test_multiply_accumulates(
        self, operator: str, tensors: list[tuple[int, ...]], macs: int, tmp_path: Path
    ) -> None:
        path = write_file(tmp_path / "m.tflite", operator, [Stored(shape=shape) for shape in tensors])
        assert inspect_tflite(path).macs == macs

    def test_transposed_convolution(self, tmp_path: Path) -> None:
        shape = Stored(shape=(4,), dtype="INT32", constant=True)
        weight = Stored(shape=(6, 3, 3, 4), constant=True)
        tensors = [shape, weight, Stored(shape=(1, 5, 5, 4)), Stored(shape=(1, 10, 10, 6))]
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "TRANSPOSE_CONV", tensors))
        assert report.macs == 5 * 5 * 4 * 6 * 3 * 3
        # The shape is a constant too, but no weight.
        assert report.parameters == 6 * 3 * 3 * 4

    def test_no_arithmetic_has_no_share(self, tmp_path: Path) -> None:
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "RELU", [Stored(shape=(1, 4))] * 2))
        assert report.macs == 0
        assert report.int8_mac_share is None

    def test_an_open_size_leaves_the_arithmetic_unknown(self, tmp_path: Path) -> None:
        image = Stored(shape=(1, 1, 1, 4), signature=(-1, -1, -1, 4))
        result = Stored(shape=(1, 1, 1, 8), signature=(-1, -1, -1, 8))
        tensors = [image, Stored(shape=(8, 3, 3, 4), constant=True), result]
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "CONV_2D", tensors))
        assert report.inputs[0].shape == (None, None, None, 4)
        assert report.macs is None
        assert report.int8_mac_share is None

    def test_a_bias_is_a_parameter_although_it_is_int32(self, tmp_path: Path) -> None:
        tensors = [
            Stored(shape=(1, 7), dtype="INT8"),
            Stored(shape=(5, 7), dtype="INT8", constant=True),
            Stored(shape=(5,), dtype="INT32", constant=True),
            Stored(shape=(1, 5), dtype="INT8"),
        ]
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "FULLY_CONNECTED", tensors))
        assert report.parameters == 40
        assert report.int8_mac_share == 1

    def test_dynamic_range_is_not_int8_arithmetic(self, tmp_path: Path) -> None:
        tensors = [
            Stored(shape=(1, 7)),
            Stored(shape=(5, 7), dtype="INT8", constant=True),
            Stored(shape=(1, 5)),
        ]
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "FULLY_CONNECTED", tensors))
        assert report.int8_mac_share == 0
        assert any("dynamic range" in note for note in report.notes)


class TestPrecision:
    def test_float_operators_are_all_of_a_float_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.tflite"
        TFLiteConverter().convert(OPERATOR_GRAPHS["residual_block"], path, ConversionSettings())
        report = inspect_tflite(path)
        assert report.float_operators == report.operators

    def test_an_integer_file_has_none(self) -> None:
        assert inspect_tflite(shared_file("mlperf_tiny_resnet8_int8.tflite")).float_operators == ()

    @pytest.mark.parametrize("also_in_float", [False, True])
    def test_conversions_there_and_back_are_noted(self, also_in_float: bool, tmp_path: Path) -> None:
        model, path = ModelBuilder("pair"), tmp_path / "pair.tflite"
        scale = Quantization(scales=(0.5,), zero_points=(0,))
        image = model.activation("image", (1, 4), "int8", scale)
        between = model.activation("between", (1, 4))
        result = model.activation("logits", (1, 4), "int8", scale)
        model.operator("DEQUANTIZE", [image], between)
        model.operator("QUANTIZE", [between], result)
        if also_in_float:
            model.operator("RELU", [between], model.activation("used", (1, 4)))
        model.write(path, description="", inputs={"image": image}, outputs={"logits": result}, metadata={})
        noted = any("quantized again" in note for note in inspect_tflite(path).notes)
        assert noted is not also_in_float


class TestContent:
    def test_custom_operators_are_named(self, tmp_path: Path) -> None:
        tensors = [Stored(shape=(1, 4))] * 2
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "CUSTOM", tensors, custom="FlexErf"))
        assert report.operators == (OperatorCount(name="FlexErf", count=1, custom=True),)
        assert any("FlexErf" in note for note in report.notes)

    def test_every_graph_is_counted(self, tmp_path: Path) -> None:
        tensors = [Stored(shape=(1, 4))] * 2
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "TANH", tensors, subgraphs=3))
        assert report.operators == (OperatorCount(name="TANH", count=3),)
        assert any("3 graphs" in note for note in report.notes)

    def test_metadata_that_is_no_text_is_shown_by_its_size(self, tmp_path: Path) -> None:
        metadata = {"labels": "Hund\nKätzchen".encode(), "blob": b"\xff\x00\x01", "control": b"\x1b[2J"}
        tensors = [Stored(shape=(1, 4))] * 2
        report = inspect_tflite(write_file(tmp_path / "m.tflite", "TANH", tensors, metadata=metadata))
        assert report.metadata == {"labels": "Hund\nKätzchen", "blob": "(3 bytes)", "control": "(4 bytes)"}

    def test_needs_no_tensorflow(self) -> None:
        script = (
            "import sys; from resnet_edge.inspection.tflite import inspect_tflite;"
            "assert not {'tensorflow', 'keras', 'onnx'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], check=True)


class TestBrokenFiles:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"TFL3",
            b"this is a text that somebody renamed",
            b"\x10\0\0\0TFL3",
            b"\xff\xff\xff\x7fTFL3\0\0",
        ],
    )
    def test_other_content(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "other.tflite"
        path.write_bytes(content)
        with pytest.raises(ModelRejectedError, match=path.name):
            inspect_tflite(path)

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent.tflite", tmp_path):
            with pytest.raises(ModelRejectedError, match=path.name):
                inspect_tflite(path)

    def test_truncated_anywhere(self, tmp_path: Path, model: bytes) -> None:
        foreign = shared_file("mlperf_tiny_resnet8_int8.tflite").read_bytes()
        path = tmp_path / "cut.tflite"
        for whole in (model, foreign):
            for size in [*range(0, len(whole), len(whole) // 150), len(whole) - 8]:
                path.write_bytes(whole[:size])
                assert not _is_accepted(path)

    def test_changed_anywhere(self, tmp_path: Path, model: bytes) -> None:
        """Whatever numbers are changed, the file is read or refused."""
        path = tmp_path / "changed.tflite"
        choose = random.Random(0)
        numbers = (0, 1, -1, 2**31 - 1, -(2**31), len(model), 4 * len(model))
        for _ in range(600):
            changed = bytearray(model)
            for _ in range(choose.choice((1, 1, 2, 8, 40))):
                place = 4 * choose.randrange(len(model) // 4)
                number = choose.choice(
                    (*numbers, choose.randrange(len(model)), choose.randrange(-(2**31), 2**31))
                )
                struct.pack_into("<i", changed, place, number)
            path.write_bytes(changed)
            _is_accepted(path)

    def test_lists_that_share_their_elements_do_not_multiply(self, tmp_path: Path) -> None:
        """A bomb: a list of 20,000 graphs that are all the same one of 500 tensors."""
        tensors = [Stored(shape=(1,) * 8)] * 500
        path = write_file(tmp_path / "bomb.tflite", "CONCATENATION", tensors, subgraphs=20_000)
        with pytest.raises(ModelRejectedError, match="longer than the file"):
            inspect_tflite(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small sound file."""
    path = tmp_path_factory.mktemp("sound") / "model.tflite"
    TFLiteConverter().convert(
        OPERATOR_GRAPHS["squeeze_and_excitation"], path, ConversionSettings(metadata={"labels": "a\nb\nc"})
    )
    return path.read_bytes()


def _is_accepted(path: Path) -> bool:
    try:
        inspect_tflite(path)
    except ModelRejectedError:
        return False
    return True
