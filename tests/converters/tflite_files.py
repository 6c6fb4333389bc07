"""Quantized graphs and files for the tests of the TFLite converter."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from resnet_edge.converters import ConversionSettings
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge_converters.tflite import TFLiteConverter
from tests.graphs import OPERATOR_GRAPHS, images
from tests.minmax import minmax

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.quantization.spec import Quantized


@cache
def quantized(name: str, recipe: str, io: Any = "float32") -> Quantized:
    """One of the operator graphs, calibrated on 16 seeded images."""
    graph = OPERATOR_GRAPHS[name]
    return quantize_graph(graph, RECIPES[recipe], minmax(graph, images(graph, 16)), io=io)


def convert(of: Quantized, folder: Path, **settings: Any) -> Path:
    """The file of a quantized graph."""
    destination = folder / "model.tflite"
    TFLiteConverter().convert(of.graph, destination, ConversionSettings(**settings), of)
    return destination
