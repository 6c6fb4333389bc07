"""The converter for ONNX: the graph written node by node with the ``onnx`` package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import ModelProto, helper

import resnet_edge
from resnet_edge.engines.onnx import LAYOUT_KEY, OnnxEngine
from resnet_edge_converters.onnx_file import write_model
from resnet_edge_converters.onnx_graph import OnnxGraphBuilder
from resnet_edge_converters.onnx_operators import expand
from resnet_edge_converters.onnx_opsets import check_opset, ir_version

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Graph

PRODUCER = "resnet-edge"


class OnnxConverter:
    """Writes ``.onnx`` files: float32, NCHW inside, the same bytes from the same graph and settings."""

    suffix = ".onnx"

    def convert(self, graph: Graph, destination: Path, settings: ConversionSettings) -> None:
        """Write ``graph`` to ``destination``, which does not exist yet.

        Raises:
            UsageError: The operator set is not supported.
            ConversionFailedError: An operator has no form in ONNX, or the file would pass 2 GiB.
            OSError: The file cannot be written.
        """
        check_opset(settings.opset)
        builder = OnnxGraphBuilder(graph, settings)
        for node in graph.nodes:
            expansion = builder.expansion(node)
            expand(node.op, expansion)
            expansion.close()
        write_model(_model(builder, settings), builder.constants, destination)

    def open(self, artifact: Path, *, threads: int = 1) -> OnnxEngine:
        """The artifact in ONNX Runtime.

        Raises:
            DependencyMissingError: ONNX Runtime is not installed.
            ModelRejectedError: ONNX Runtime does not accept the file.
        """
        return OnnxEngine(artifact, threads=threads)


def _model(builder: OnnxGraphBuilder, settings: ConversionSettings) -> ModelProto:
    model = helper.make_model(
        builder.proto(),
        producer_name=PRODUCER,
        producer_version=resnet_edge.__version__,
        opset_imports=[helper.make_opsetid("", settings.opset)],
        ir_version=ir_version(settings.opset),
    )
    metadata = {**settings.metadata, LAYOUT_KEY: settings.onnx_layout}
    helper.set_model_props(model, dict(sorted(metadata.items())))
    return model
