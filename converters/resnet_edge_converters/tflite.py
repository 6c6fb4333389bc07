"""The TFLite converter: a graph as one .tflite file, without TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge import __version__
from resnet_edge.engines.tflite import TFLiteEngine
from resnet_edge.quantization.spec import Quantized
from resnet_edge_converters.tflite_border import emit_input, emit_output
from resnet_edge_converters.tflite_emitter import Emitter
from resnet_edge_converters.tflite_flatbuffer import ModelBuilder
from resnet_edge_converters.tflite_operators import emit
from resnet_edge_converters.tflite_readback import read_content

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Graph
    from resnet_edge.quantization.readback import FileContent


class TFLiteConverter:
    """Writes .tflite files; see :class:`resnet_edge.converters.Converter`."""

    suffix = ".tflite"
    recipes = frozenset({"fp16", "int8", "int8-per-tensor", "int16x8", "int8-weights"})

    def convert(
        self,
        graph: Graph,
        destination: Path,
        settings: ConversionSettings,
        quantized: Quantized | None = None,
    ) -> None:
        """Write ``graph``, or ``quantized``, to ``destination``; the same values give the same bytes.

        Raises:
            ConversionFailedError: TFLite cannot express the graph, or not in one file; names the node.
            OSError: The file cannot be written.
        """
        quantized = quantized or Quantized.in_float(graph)
        graph = quantized.graph
        model = ModelBuilder(graph.name)
        emitter = Emitter(quantized, model, settings.batch)
        inputs = {graph.tensor_name(name): emit_input(graph.by_name[name], emitter) for name in graph.inputs}
        for node in graph.nodes:
            if node.name not in graph.inputs:
                emit(node, emitter)
        model.write(
            destination,
            description=f"{graph.name}, written by resnet-edge {__version__}",
            inputs=inputs,
            outputs={graph.output_name: emit_output(emitter)},
            metadata=settings.metadata,
        )

    def read_back(self, path: Path, quantized: Quantized) -> FileContent:
        """The scales, zero points and integers that a file really holds.

        Raises:
            ModelRejectedError: The file cannot be read, or is damaged.
        """
        return read_content(path, quantized)

    def open(self, artifact: Path, *, threads: int = 1) -> TFLiteEngine:
        """The artifact in LiteRT.

        Raises:
            DependencyMissingError: ai-edge-litert is not installed.
            ModelRejectedError: LiteRT does not accept the file.
        """
        return TFLiteEngine(artifact, threads=threads)
