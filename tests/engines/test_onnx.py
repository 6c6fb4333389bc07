from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from resnet_edge.converters import ConversionSettings
from resnet_edge.engines.onnx import OnnxEngine
from resnet_edge.errors import DataRejectedError, DependencyMissingError, ModelRejectedError
from resnet_edge_converters.onnx import OnnxConverter
from tests.graph_builder import images
from tests.graphs import OPERATOR_GRAPHS

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = OPERATOR_GRAPHS["residual_block"]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    OnnxConverter().convert(GRAPH, path, ConversionSettings(batch=2))
    return path


def another_tools_file(path: Path, shape: list[int | str], *, inputs: int = 1) -> Path:
    """A file without metadata that reports the first 30 values of each image."""
    names = [f"input{i}" for i in range(inputs)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    node = helper.make_node("Flatten", names[:1], ["output"])
    graph = helper.make_graph([node], "graph", values, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("shape", "image", "nchw"),
    [
        ([1, 3, 4, 5], (4, 5, 3), True),
        ([1, 6, 5, 3], (6, 5, 3), False),
        (["batch", 1, 8, 8], (8, 8, 1), True),
        (["batch", 8, 8, 1], (8, 8, 1), False),
        # Either could be the channels, or neither: ONNX's convention.
        ([1, 3, 5, 3], (5, 3, 3), True),
        ([1, 7, 4, 5], (4, 5, 7), True),
    ],
)
def test_layout_of_another_tools_file(
    shape: list[int | str], image: tuple[int, ...], nchw: bool, tmp_path: Path
) -> None:
    inputs = np.random.default_rng(0).normal(size=(3, *image)).astype(np.float32)
    with OnnxEngine(another_tools_file(tmp_path / "other.onnx", shape)) as engine:
        outputs = engine.run(inputs)
    stored = inputs.transpose(0, 3, 1, 2) if nchw else inputs
    np.testing.assert_array_equal(outputs, stored.reshape(3, -1))


def test_metadata_decides_the_layout_where_the_shape_does_not(tmp_path: Path) -> None:
    graph = OPERATOR_GRAPHS["conv_1_input_channel"]
    inputs = images(graph)
    outputs = []
    for layout in ("nchw", "nhwc"):
        path = tmp_path / f"{layout}.onnx"
        OnnxConverter().convert(graph, path, ConversionSettings(onnx_layout=layout))
        with OnnxEngine(path, threads=2) as engine:
            outputs.append(engine.run(inputs))
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_images_of_another_shape_are_refused(artifact: Path) -> None:
    with OnnxEngine(artifact) as engine, pytest.raises(DataRejectedError, match="do not fit"):
        engine.run(np.zeros((1, 3, 9, 7), np.float32))


@pytest.mark.parametrize("damage", ["empty", "truncated", "random", "text", "missing", "folder"])
def test_what_is_no_onnx_file_is_refused(damage: str, artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    match damage:
        case "truncated":
            path.write_bytes(artifact.read_bytes()[:-100])
        case "random":
            path.write_bytes(random.Random(0).randbytes(5000))
        case "text":
            path.write_text("weights\n")
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
    with pytest.raises(ModelRejectedError, match="does not accept") as caught:
        OnnxEngine(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(("shape", "inputs"), [([1, 30], 1), ([1, 3, 4, 5], 2)])
def test_a_model_of_other_than_one_image_is_refused(
    shape: list[int | str], inputs: int, tmp_path: Path
) -> None:
    with pytest.raises(ModelRejectedError, match="one image"):
        OnnxEngine(another_tools_file(tmp_path / "other.onnx", shape, inputs=inputs))


def test_missing_runtime_is_named(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyMissingError, match="pip install onnxruntime"):
        OnnxEngine(artifact)


def test_nothing_is_printed(artifact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with OnnxEngine(artifact) as engine:
        engine.run(images(GRAPH, 1))
    assert capfd.readouterr() == ("", "")
