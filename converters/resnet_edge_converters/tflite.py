"""The TFLite converter: a graph as one .tflite file, without TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge import __version__
from resnet_edge.engines.tflite import TFLiteEngine
from resnet_edge.graph import INPUT_NAME
from resnet_edge_converters.tflite_emitter import Emitter
from resnet_edge_converters.tflite_flatbuffer import ModelBuilder
from resnet_edge_converters.tflite_operators import emit

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Graph


class TFLiteConverter:
    """Writes .tflite files; see :class:`resnet_edge.converters.Converter`."""

    suffix = ".tflite"

    def convert(self, graph: Graph, destination: Path, settings: ConversionSettings) -> None:
        """Write ``graph`` to ``destination``; the same graph and settings give the same bytes.

        Raises:
            ConversionFailedError: TFLite cannot express the graph, or not in one file; names the node.
            OSError: The file cannot be written.
        """
        model = ModelBuilder(graph.name)
        emitter = Emitter(graph, model, settings.batch)
        for node in graph.nodes:
            emit(node, emitter)
        model.write(
            destination,
            description=f"{graph.name}, written by resnet-edge {__version__}",
            inputs={graph.tensor_name(INPUT_NAME): emitter.tensor(INPUT_NAME)},
            outputs={graph.output_name: emitter.tensor(graph.output)},
            metadata=settings.metadata,
        )

    def open(self, artifact: Path, *, threads: int = 1) -> TFLiteEngine:
        """The artifact in LiteRT.

        Raises:
            DependencyMissingError: ai-edge-litert is not installed.
            ModelRejectedError: LiteRT does not accept the file.
        """
        return TFLiteEngine(artifact, threads=threads)
