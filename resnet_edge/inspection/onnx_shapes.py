"""The shapes of an ONNX model's tensors, as far as they follow from its inputs'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, shape_inference

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUNTIMES_DOMAIN = "com.microsoft"

_FIRST, _FIRST_TWO, _QUANTIZED_TWO = slice(1), slice(2), slice(0, 4, 3)
_STAND_INS = {
    "DequantizeLinear": ("DequantizeLinear", slice(3)),
    "FusedConv": ("Conv", _FIRST_TWO),
    "FusedGemm": ("Gemm", _FIRST_TWO),
    "QGemm": ("Gemm", _QUANTIZED_TWO),
    "QLinearAdd": ("Add", _QUANTIZED_TWO),
    "QLinearAveragePool": ("AveragePool", _FIRST),
    "QLinearConcat": ("Concat", slice(2, None, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", _FIRST),
    "QLinearLeakyRelu": ("Relu", _FIRST),
    "QLinearMul": ("Mul", _QUANTIZED_TWO),
    "QLinearSigmoid": ("Relu", _FIRST),
    "QLinearSoftmax": ("Relu", _FIRST),
    "QuantizeLinear": ("QuantizeLinear", slice(3)),
    "QuickGelu": ("Relu", _FIRST),
}
"""ONNX Runtime's own operators, which its quantizer and optimizer write, each with a standard operator that
gives the same shape and type, and those of its inputs that the standard operator takes."""


def graphs_in(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph, and the bodies of its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node:
                    yield from graphs_in(body)


def infer_shapes(model: ModelProto) -> tuple[list[ValueInfoProto], list[str]]:
    """What the model declares and what follows from it, and a note where nothing can be said to follow."""
    notes = []
    standard = ModelProto()
    standard.CopyFrom(model)
    for graph in graphs_in(standard.graph):
        for node in graph.node:
            _standardize(node)
    try:
        standard = shape_inference.infer_shapes(standard, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        reason = "".join(str(error).strip().splitlines()[:1])
        notes.append(f"the shapes inside the model could not be worked out: {reason}")
    values = [
        value
        for graph in graphs_in(standard.graph)
        for value in (*graph.input, *graph.output, *graph.value_info)
    ]
    return values, notes


def _standardize(node: NodeProto) -> None:
    """Put an operator of ONNX Runtime's own behind its standard stand-in."""
    channels_last = any(entry.name == "channels_last" and entry.i for entry in node.attribute)
    if node.domain == _RUNTIMES_DOMAIN and node.op_type in _STAND_INS and not channels_last:
        node.op_type, places = _STAND_INS[node.op_type]
        node.domain = ""
        inputs = list(node.input)[places]
        del node.input[:]
        node.input.extend(inputs)
