"""What inspect says of a file's weights: zeros, distinct values, size under gzip."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pytest

from resnet_edge.converters import ConversionSettings, load_converter
from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph import GraphEditor
from resnet_edge.inspection.files import inspect_file
from resnet_edge.inspection.weights import WeightFigures, gzip_size, weight_figures
from tests.graphs import OPERATOR_GRAPHS


def graph():
    """A convolution with few values and a dense layer with zeros."""
    editor = GraphEditor(OPERATOR_GRAPHS["residual_block"])
    stem, dense = editor.node("stem").op, editor.node("dense").op
    few = np.round(stem.weights()["weight"])
    zeros = dense.weights()["weight"].copy()
    zeros[::2] = 0
    editor.set_op("stem", replace(stem, weight=few))  # type: ignore[type-var]
    editor.set_op("dense", replace(dense, weight=zeros))  # type: ignore[type-var]
    return editor.graph()


@pytest.fixture(params=["tflite", "onnx"])
def file(request, tmp_path):
    converter = load_converter(request.param)
    path = tmp_path / f"model{converter.suffix}"
    converter.convert(graph(), path, ConversionSettings())
    return path


def test_the_figures_are_those_of_the_graph(file):
    wanted = [node.op.weights()["weight"] for node in graph().nodes if "weight" in node.op.weights()]
    found = inspect_file(file).weights
    assert found is not None
    assert sorted(map(str, found)) == sorted(str(WeightFigures.of(weight)) for weight in wanted)
    assert WeightFigures(size=30, zeros=15, distinct=16) in found


def test_the_size_under_gzip_is_gzips_own(file):
    # gzip adds a header and a checksum of 18 bytes, zlib's own of 6.
    assert gzip_size(file) == len(gzip.compress(file.read_bytes(), 6)) - 18 + 6
    assert inspect_file(file).gzip_size == gzip_size(file)


def test_a_file_cut_short_is_refused(file):
    file.write_bytes(file.read_bytes()[:-1500])
    with pytest.raises(ModelRejectedError):
        weight_figures(file, "tflite" if file.suffix == ".tflite" else "onnx")
