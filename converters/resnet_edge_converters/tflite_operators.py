"""Every operator of the graph as TFLite operators: one function each, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph.operators import (
    Add,
    AveragePool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    LeakyRelu,
    MaxPool2D,
    Multiply,
    Operator,
    Pad,
    Permute,
    PRelu,
    Reshape,
    Slice,
    Subtract,
    Upsample2D,
)
from resnet_edge_converters.tflite_emitter import FUSED
from resnet_edge_converters.tflite_windows import (
    emit_average_pool,
    emit_conv,
    emit_depthwise,
    emit_max_pool,
    paddings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnet_edge.graph import Node
    from resnet_edge_converters.tflite_emitter import Emitter

    EmitOperator: TypeAlias = Callable[[Any, Node, Emitter], None]

FUNCTIONS = {
    Function.RELU: "RELU",
    Function.RELU6: "RELU6",
    Function.SIGMOID: "LOGISTIC",
    Function.TANH: "TANH",
    Function.HARD_SWISH: "HARD_SWISH",
}
"""The functions that are one operator, without options."""

SCALE_KEEPING = (AveragePool2D, Concat, GlobalMaxPool, MaxPool2D, Pad, Permute, Reshape, Slice, Upsample2D)
"""The operators whose integer kernels do not change the scale."""


def emit(node: Node, to: Emitter) -> None:
    """Append the TFLite operators that compute ``node``.

    Raises:
        ConversionFailedError: TFLite has no way to say it.
    """
    emit_operator = OPERATORS.get(type(node.op))
    if emit_operator is None:
        raise ConversionFailedError(
            "the graph holds an operator that cannot be written as TFLite",
            where=node.source or node.name,
            found=type(node.op).__name__,
            allowed=", ".join(sorted(op.__name__ for op in OPERATORS)),
            next_step="run the passes before the conversion",
        )
    if isinstance(node.op, SCALE_KEEPING) and to.is_integer(node):
        _check_scales(node, to)
    emit_operator(node.op, node, to)
    to.settle(node)


def _check_scales(node: Node, to: Emitter) -> None:
    """See that an operator whose kernel moves integers as they are has one scale on all sides."""
    own = to.spec.tensors[node.name]
    for name in node.inputs:
        other = to.spec.tensors[name]
        if (other.scale, other.zero_point) != (own.scale, own.zero_point):
            raise ConversionFailedError(
                "the operator changes no scale, but the spec gives its tensors different ones",
                where=node.source or node.name,
                found=f"{other.scale} ({other.zero_point}) of {name!r}, {own.scale} ({own.zero_point}) here",
                allowed="one scale and zero point for its inputs and its output",
                next_step="quantize again; the spec of an older version may not have kept to this",
            )


def _dense(op: Dense, node: Node, to: Emitter) -> None:
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = FUSED[op.activation]
    options.asymmetricQuantizeInputs = to.is_hybrid(node)
    inputs = [to.source(node), to.constant(node, "weight"), to.constant(node, "bias")]
    # Runtimes from before version 12 take the first channel's scale for all, and do not say so.
    version = 12 if to.is_per_channel(node) else 1
    to.model.operator("FULLY_CONNECTED", inputs, to.result(node), options, version=version)


def _batch_norm(op: BatchNorm, node: Node, to: Emitter) -> None:
    # In float64, rounded once, as where a batch norm is folded.
    scale = op.gamma / np.sqrt(op.variance.astype(np.float64) + op.epsilon)
    offset = op.beta - op.mean * scale
    scaled = to.between(node, "scaled", to.result_shape(node))
    inputs = [to.source(node), to.weight(node, "scale", scale.astype(np.float32))]
    to.model.operator("MUL", inputs, scaled, schema.MulOptionsT())
    inputs = [scaled, to.weight(node, "offset", offset.astype(np.float32))]
    to.model.operator("ADD", inputs, to.result(node), schema.AddOptionsT())


def _elementwise(op: Elementwise, node: Node, to: Emitter) -> None:
    if op.function is Function.SOFTMAX:
        softmax = schema.SoftmaxOptionsT()
        softmax.beta = 1.0
        to.model.operator("SOFTMAX", [to.source(node)], to.result(node), softmax)
    elif op.function is Function.SWISH:
        gate = to.between(node, "sigmoid", to.result_shape(node))
        to.model.operator("LOGISTIC", [to.source(node)], gate)
        to.model.operator("MUL", [to.source(node), gate], to.result(node), schema.MulOptionsT())
    elif op.function is Function.HARD_SIGMOID:
        _hard_sigmoid(node, to)
    else:
        to.model.operator(FUNCTIONS[op.function], [to.source(node)], to.result(node))


def _hard_sigmoid(node: Node, to: Emitter) -> None:
    shifted = to.between(node, "shifted", to.result_shape(node))
    add = schema.AddOptionsT()
    add.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    to.model.operator("ADD", [to.source(node), to.number(node, "three", 3.0)], shifted, add)
    inputs = [shifted, to.number(node, "sixth", 1 / 6)]
    to.model.operator("MUL", inputs, to.result(node), schema.MulOptionsT())


def _leaky_relu(op: LeakyRelu, node: Node, to: Emitter) -> None:
    options = schema.LeakyReluOptionsT()
    options.alpha = op.alpha
    to.model.operator("LEAKY_RELU", [to.source(node)], to.result(node), options)


def _prelu(op: PRelu, node: Node, to: Emitter) -> None:  # noqa: ARG001 - as the others
    alpha = to.constant(node, "alpha", rank=len(to.source_shape(node)))
    to.model.operator("PRELU", [to.source(node), alpha], to.result(node))


def _add(op: Add, node: Node, to: Emitter) -> None:
    options = schema.AddOptionsT()
    options.fusedActivationFunction = FUSED[op.activation]
    options.potScaleInt16 = False  # else int16 scales would have to be powers of two
    to.model.operator("ADD", to.sources(node), to.result(node), options)


def _multiply(op: Multiply, node: Node, to: Emitter) -> None:  # noqa: ARG001 - as the others
    version = 3 if to.is_integer(node) and _multiplier(node, to) >= 1 else 1
    to.model.operator("MUL", to.sources(node), to.result(node), schema.MulOptionsT(), version=version)


def _multiplier(node: Node, to: Emitter) -> float:
    """The factor that brings the product of two integers to the output's scale."""
    first, second = (to.spec.tensors[name].scale for name in node.inputs)
    return first * second / to.spec.tensors[node.name].scale


def _subtract(op: Subtract, node: Node, to: Emitter) -> None:  # noqa: ARG001 - as the others
    to.model.operator("SUB", to.sources(node), to.result(node), schema.SubOptionsT())


def _concat(op: Concat, node: Node, to: Emitter) -> None:  # noqa: ARG001 - as the others
    options = schema.ConcatenationOptionsT()
    options.axis = len(to.result_shape(node))
    to.model.operator("CONCATENATION", to.sources(node), to.result(node), options)


def _global_average_pool(op: GlobalAveragePool, node: Node, to: Emitter) -> None:
    _reduce_map(op, node, to, "MEAN")


def _global_max_pool(op: GlobalMaxPool, node: Node, to: Emitter) -> None:
    _reduce_map(op, node, to, "REDUCE_MAX")


def _reduce_map(op: GlobalAveragePool | GlobalMaxPool, node: Node, to: Emitter, builtin: str) -> None:
    options = schema.ReducerOptionsT()
    options.keepDims = op.keepdims
    inputs = [to.source(node), to.indices(node, "axes", (1, 2))]
    to.model.operator(builtin, inputs, to.result(node), options)


def _reshape(op: Reshape, node: Node, to: Emitter) -> None:
    shape = (-1 if to.batch is None else to.batch, *op.shape)
    options = schema.ReshapeOptionsT()
    options.newShape = np.array(shape, np.int32)
    inputs = [to.source(node), to.indices(node, "shape", shape)]
    to.model.operator("RESHAPE", inputs, to.result(node), options)


def _pad(op: Pad, node: Node, to: Emitter) -> None:
    inputs = [to.source(node), to.indices(node, "paddings", paddings(op.padding, op.channels))]
    to.model.operator("PAD", inputs, to.result(node), schema.PadOptionsT())


def _slice(op: Slice, node: Node, to: Emitter) -> None:
    options = schema.StridedSliceOptionsT()
    options.beginMask = options.endMask = 1  # bit 0: the batch is taken whole
    inputs = [
        to.source(node),
        to.indices(node, "begin", (0, *op.begin)),
        to.indices(node, "end", (0, *op.end)),
        to.indices(node, "strides", (1, *op.strides)),
    ]
    to.model.operator("STRIDED_SLICE", inputs, to.result(node), options)


def _upsample(op: Upsample2D, node: Node, to: Emitter) -> None:
    options: Any
    if op.bilinear:
        builtin, options = "RESIZE_BILINEAR", schema.ResizeBilinearOptionsT()
    else:
        builtin, options = "RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT()
    # For the nearest pixel as well: the centre of a copy is far from the edge between two pixels, on which
    # the kernel's float32 arithmetic could take the wrong one.
    options.halfPixelCenters = True
    inputs = [to.source(node), to.indices(node, "size", to.result_shape(node)[:2])]
    to.model.operator(builtin, inputs, to.result(node), options, version=3)


def _permute(op: Permute, node: Node, to: Emitter) -> None:
    inputs = [to.source(node), to.indices(node, "order", (0, *(axis + 1 for axis in op.order)))]
    to.model.operator("TRANSPOSE", inputs, to.result(node), schema.TransposeOptionsT())


OPERATORS: dict[type[Operator], EmitOperator] = {
    Add: _add,
    AveragePool2D: emit_average_pool,
    BatchNorm: _batch_norm,
    Concat: _concat,
    Conv2D: emit_conv,
    Dense: _dense,
    DepthwiseConv2D: emit_depthwise,
    Elementwise: _elementwise,
    GlobalAveragePool: _global_average_pool,
    GlobalMaxPool: _global_max_pool,
    LeakyRelu: _leaky_relu,
    MaxPool2D: emit_max_pool,
    Multiply: _multiply,
    Pad: _pad,
    Permute: _permute,
    PRelu: _prelu,
    Reshape: _reshape,
    Slice: _slice,
    Subtract: _subtract,
    Upsample2D: _upsample,
}
"""How each operator but the input is written. Affine is not here: the passes leave none."""
