"""The file's own input and output, and the conversions between them and the tensors inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.inspection.report import Quantization

if TYPE_CHECKING:
    from resnet_edge.graph import Node
    from resnet_edge_converters.tflite_emitter import Emitter
    from resnet_edge_converters.tflite_flatbuffer import TensorId

UNSIGNED = 128
"""What a uint8 is more than the int8 that stands for the same number."""


def emit_input(node: Node, to: Emitter) -> TensorId:
    """Make the file's input, and what the first operators take of it."""
    if to.spec.io == "float32":
        image = to.float_result(node)
        to.settle(node)
        return image
    if to.spec.io == "int8":
        return to.integer_result(node)
    image = _unsigned(node.name, to)
    to.model.operator("QUANTIZE", [image], to.integer_result(node), schema.QuantizeOptionsT())
    return image


def emit_output(to: Emitter) -> TensorId:
    """Make the file's output out of the last node's tensor."""
    if to.spec.io == "float32":
        return to.float_tensor(to.graph.output)
    integers = to.integer_tensor(to.graph.output)
    if to.spec.io == "int8":
        return integers
    output = _unsigned(to.graph.output, to)
    to.model.operator("QUANTIZE", [integers], output, schema.QuantizeOptionsT())
    return output


def _unsigned(name: str, to: Emitter) -> TensorId:
    """Make the uint8 form of a node's int8 tensor."""
    quant = to.spec.tensors[name]
    shape = (to.batch, *to.graph.shapes[name])
    quantization = Quantization(scales=(quant.scale,), zero_points=(quant.zero_point + UNSIGNED,))
    return to.model.activation(to.graph.tensor_name(name), shape, np.dtype(np.uint8).name, quantization)
