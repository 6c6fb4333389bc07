"""The converter for ONNX: the graph written node by node with the ``onnx`` package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onnx import ModelProto, helper

import resnet_edge
from resnet_edge.engines.onnx import LAYOUT_KEY, QUANTIZATION_KEY, OnnxEngine
from resnet_edge.errors import UsageError
from resnet_edge.quantization.spec import Quantized
from resnet_edge_converters.onnx_file import write_model
from resnet_edge_converters.onnx_graph import OnnxGraphBuilder
from resnet_edge_converters.onnx_operators import expand
from resnet_edge_converters.onnx_opsets import check_opset, ir_version
from resnet_edge_converters.onnx_readback import read_content

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Graph
    from resnet_edge.quantization.readback import FileContent
    from resnet_edge.quantization.spec import QuantSpec

PRODUCER = "resnet-edge"


class OnnxConverter:
    """Writes ``.onnx`` files: NCHW inside, the same bytes from the same values and settings.

    Quantized graphs are written with QuantizeLinear and DequantizeLinear around float operators, which
    runtimes fuse into integer operators; :mod:`resnet_edge_converters.onnx_graph` says what is named how.
    """

    suffix = ".onnx"
    recipes = frozenset({"fp16", "int8", "int8-per-tensor", "int8-weights"})

    def convert(
        self,
        graph: Graph,
        destination: Path,
        settings: ConversionSettings,
        quantized: Quantized | None = None,
    ) -> None:
        """Write ``graph``, or ``quantized``, to ``destination``, which does not exist yet.

        Raises:
            UsageError: The operator set is not supported, or ONNX has no form of the recipe or of its input
                and output.
            ConversionFailedError: An operator has no form in ONNX, or the file would pass 2 GiB.
            OSError: The file cannot be written.
        """
        if quantized is None:
            quantized = Quantized.in_float(graph)
        else:
            self._check_recipe(quantized.spec)
        check_opset(settings.opset, integers=_holds_integers(quantized.spec))
        builder = OnnxGraphBuilder(quantized, settings)
        for node in quantized.graph.nodes:
            expansion = builder.expansion(node)
            expand(node.op, expansion)
            expansion.close()
        write_model(_model(builder), builder.constants, destination)

    def _check_recipe(self, spec: QuantSpec) -> None:
        if spec.recipe not in self.recipes:
            raise UsageError(
                f"recipe {spec.recipe!r} cannot be written as ONNX",
                where="--recipe",
                allowed=", ".join(sorted(self.recipes)),
                next_step="use --format tflite or savedmodel for it",
            )

    def read_back(self, artifact: Path, quantized: Quantized) -> FileContent:
        """The scales, zero points and integers that a file really holds.

        Raises:
            ModelRejectedError: The file cannot be read, or is damaged.
        """
        return read_content(artifact, quantized)

    def open(self, artifact: Path, *, threads: int = 1) -> OnnxEngine:
        """The artifact in ONNX Runtime.

        Raises:
            DependencyMissingError: ONNX Runtime is not installed.
            ModelRejectedError: ONNX Runtime does not accept the file.
        """
        return OnnxEngine(artifact, threads=threads)


def _holds_integers(spec: QuantSpec) -> bool:
    return bool(spec.tensors) or any(quant.scales for quant in spec.constants.values())


def _model(builder: OnnxGraphBuilder) -> ModelProto:
    settings = builder.settings
    model = helper.make_model(
        builder.proto(),
        producer_name=PRODUCER,
        producer_version=resnet_edge.__version__,
        opset_imports=[helper.make_opsetid("", settings.opset)],
        ir_version=ir_version(settings.opset),
    )
    metadata = {**settings.metadata, LAYOUT_KEY: settings.onnx_layout, **_border(builder)}
    helper.set_model_props(model, dict(sorted(metadata.items())))
    return model


def _border(builder: OnnxGraphBuilder) -> dict[str, str]:
    """What the integers of the file's input and output stand for, where they are integers."""
    if builder.types.io.kind == "f":
        return {}
    graph, tensors = builder.quantized.graph, builder.quantized.spec.tensors
    forms = {
        graph.tensor_name(name): {
            "scale": tensors[name].scale,
            "zero_point": int(builder.types.zero_point(tensors[name])),
        }
        for name in (*graph.inputs, graph.output)
    }
    return {QUANTIZATION_KEY: json.dumps(forms)}
