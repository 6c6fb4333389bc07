"""Small artifacts to compare layer by layer, and the quantized graphs that they are written from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.converters import ConversionSettings, QuantizingConverter, load_converter
from resnet_edge.graph.operators import Add
from resnet_edge.passes import run_passes
from resnet_edge.quantization.spec import Quantized
from tests.graph_builder import GraphBuilder, images
from tests.quantization.integer_models import calibrated

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.graph import Graph

RECIPES = {
    "tflite": ("fp32", "fp16", "int8-weights", "int8", "int16x8"),
    "onnx": ("fp32", "fp16", "int8-weights", "int8"),
}


def network() -> Graph:
    """Three convolutions, the last with a shortcut around it, and a head."""
    builder = GraphBuilder((8, 8, 3))
    x = builder.conv(builder.image, 6, name="one")
    x = builder.conv(x, 6, name="two")
    x = builder.add(Add(), x, builder.conv(x, 6, name="three"), name="sum")
    return run_passes(builder.classified(x)).graph


def quantized_as(graph: Graph, recipe: str) -> Quantized:
    """A folded graph, quantized on four seeded images."""
    return Quantized.in_float(graph) if recipe == "fp32" else calibrated(graph, recipe, images(graph, 4))


def write(
    quantized: Quantized, folder: Path, format_: str, settings: ConversionSettings | None = None
) -> Path:
    """The artifact's file."""
    path = folder / f"{quantized.spec.recipe}.{format_}"
    path.unlink(missing_ok=True)
    converter = load_converter(format_)
    assert isinstance(converter, QuantizingConverter)
    given = quantized if quantized.spec.recipe in converter.recipes else None
    converter.convert(quantized.graph, path, settings or ConversionSettings(), given)
    return path
