"""Reading the integers of a .tflite file back, and finding any that is not the spec's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.errors import ConversionFailedError, ModelRejectedError
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.readback import check
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge_converters.tflite import TFLiteConverter
from tests.converters.tflite_files import convert, quantized
from tests.graph_builder import GraphBuilder
from tests.graphs import images
from tests.minmax import minmax

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def changed(path: Path, change: Callable[[Any, dict[str, Any]], None]) -> None:
    """Change a file; ``change`` takes the model and its tensors by name."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0)
    change(model, {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors})
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())


def one_scale(model: Any, tensors: dict[str, Any]) -> None:
    scale = tensors["stem"].quantization.scale
    scale[0] = np.nextafter(scale[0], np.float32(1))


def one_zero_point(model: Any, tensors: dict[str, Any]) -> None:
    tensors["stage1/block.0/add"].quantization.zeroPoint[0] += 1


def one_weight(model: Any, tensors: dict[str, Any]) -> None:
    model.buffers[tensors["stage1/block.0/conv-1/weight_int8"].buffer].data[7] ^= 1


def one_bias(model: Any, tensors: dict[str, Any]) -> None:
    model.buffers[tensors["dense/bias_int32"].buffer].data[0] ^= 1


def one_channel_scale(model: Any, tensors: dict[str, Any]) -> None:
    scale = tensors["stage1/block.0/shortcut/weight_int8"].quantization.scale
    scale[3] = np.nextafter(scale[3], np.float32(1))


def one_name(model: Any, tensors: dict[str, Any]) -> None:
    tensors["dense/weight_int8"].name = b"other"


class TestReadBack:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (one_scale, "scale of 'stem'"),
            (one_zero_point, "zero point of 'stage1/block.0/add'"),
            (one_weight, "values of 'stage1/block.0/conv-1/weight'"),
            (one_bias, "values of 'dense/bias'"),
            (one_channel_scale, "scales of 'stage1/block.0/shortcut/weight'"),
            (one_name, "'dense/weight' is missing"),
        ],
    )
    def test_finds_what_was_changed(
        self, change: Callable[[Any, dict[str, Any]], None], named: str, tmp_path: Path
    ) -> None:
        model = quantized("residual_block", "int8")
        artifact = convert(model, tmp_path)
        check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)
        changed(artifact, change)
        with pytest.raises(ConversionFailedError, match=named):
            check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)

    @pytest.mark.parametrize("field", ["zeroPoint", "quantizedDimension"])
    def test_finds_weights_that_are_to_be_read_another_way(self, field: str, tmp_path: Path) -> None:
        def change(model: Any, tensors: dict[str, Any]) -> None:
            quantization = tensors["dense/weight_int8"].quantization
            setattr(quantization, field, getattr(quantization, field) + 1)

        model = quantized("residual_block", "int8")
        artifact = convert(model, tmp_path)
        changed(artifact, change)
        with pytest.raises(ModelRejectedError, match="dense/weight_int8"):
            TFLiteConverter().read_back(artifact, model)

    def test_finds_a_node_beside_one_that_is_named_like_its_weight(self, tmp_path: Path) -> None:
        builder = GraphBuilder((6, 6, 3))
        inner = builder.conv(builder.image, 4, name="conv")
        graph = builder.classified(builder.conv(inner, 4, name="conv/weight_int8"))
        model = quantize_graph(graph, RECIPES["int8"], minmax(graph, images(graph)))
        artifact = convert(model, tmp_path)
        check(TFLiteConverter().read_back(artifact, model), model, where=artifact.name)

    def test_a_damaged_file_is_an_error(self, tmp_path: Path) -> None:
        model = quantized("residual_block", "int8")
        artifact = convert(model, tmp_path)
        artifact.write_bytes(artifact.read_bytes()[:500])
        with pytest.raises(ModelRejectedError, match=artifact.name):
            TFLiteConverter().read_back(artifact, model)
