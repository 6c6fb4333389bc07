"""The element type of every tensor of an ONNX file.

ONNX Runtime is faster on x86 with unsigned activations, so the spec's int8 can be written as uint8: every
integer and every zero point 128 larger, which stands for the same real numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from resnet_edge.errors import ConversionFailedError, UsageError
from resnet_edge.graph.operators import (
    Concat,
    Elementwise,
    Function,
    GlobalMaxPool,
    Input,
    MaxPool2D,
    Pad,
    Permute,
    Reshape,
    Slice,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Node
    from resnet_edge.graph.operators import Operator
    from resnet_edge.quantization.spec import Quantized, TensorQuant

DType: TypeAlias = np.dtype[Any]

FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)

_OFFSETS = {"int8": 0, "uint8": 128}
"""What an integer of each type is more than the spec's int8."""

_MOVERS = (Concat, GlobalMaxPool, MaxPool2D, Pad, Permute, Reshape, Slice)


def moves_integers(op: Operator) -> bool:
    """Whether an operator only moves or compares elements, so that it takes integers as they are.

    Others are written in float between DequantizeLinear and QuantizeLinear, which runtimes fuse.
    """
    relu = isinstance(op, Elementwise) and op.function in (Function.RELU, Function.RELU6)
    return relu or isinstance(op, _MOVERS)


def signed(zero_point: NDArray[Any]) -> int:
    """A stored zero point as the spec's int8.

    Raises:
        KeyError: Its type is no activation's.
    """
    return int(zero_point) - _OFFSETS[zero_point.dtype.name]


class ElementTypes:
    """Which type each tensor has, by the spec and the settings.

    Attributes:
        io: Of the file's input and output.
        integer: Of quantized activations.

    Raises:
        UsageError: The settings do not fit the spec.
    """

    def __init__(self, quantized: Quantized, settings: ConversionSettings) -> None:
        self._quantized = quantized
        self._half = quantized.spec.recipe == "fp16"
        self.integer = np.dtype(settings.onnx_activations)
        self.io = np.dtype(quantized.spec.io)
        if self.io not in (FLOAT32, self.integer):
            raise UsageError(
                "an ONNX file's integer input and output have the type of its activations",
                where="--io",
                found=f"{self.io} with {self.integer} activations",
                allowed=f"float32, {self.integer}",
                next_step=f"use --io {self.integer}, or --onnx-activations {self.io}",
            )
        for name in (*quantized.graph.inputs, quantized.graph.output):
            if self.io != FLOAT32 and name not in quantized.spec.tensors:
                raise UsageError(
                    f"the file cannot take and give {self.io}",
                    where=quantized.graph.by_name[name].source or name,
                    found="a layer kept in float",
                    next_step="use --io float32, or drop the override that keeps it in float",
                )

    def held(self, node: str) -> DType:
        """The type in which a node's result is handed on."""
        if node in self._quantized.spec.tensors:
            return self.integer
        return self._float(node)

    def computed(self, node: Node) -> DType:
        """The type in which a node's own operators take their inputs and give their result."""
        if isinstance(node.op, Input):
            return self.io
        if self._quantized.is_integer(node.name) and moves_integers(node.op):
            self._check_same_scale(node)
            return self.integer
        return self._float(node.name)

    def _float(self, node: str) -> DType:
        return FLOAT16 if self._half and node not in self._quantized.spec.kept_float else FLOAT32

    def zero_point(self, quant: TensorQuant) -> NDArray[Any]:
        """A zero point as it is stored."""
        return self._stored(quant.zero_point)

    def is_limited(self, quant: TensorQuant) -> bool:
        """Whether a tensor's smallest and largest integer are others than those of its type."""
        limits = np.iinfo(quant.dtype)
        return (quant.qmin, quant.qmax) != (limits.min, limits.max)

    def limits(self, quant: TensorQuant) -> tuple[NDArray[Any], NDArray[Any]]:
        """The smallest and largest integer as they are stored."""
        return self._stored(quant.qmin), self._stored(quant.qmax)

    def _stored(self, integer: int) -> NDArray[Any]:
        return np.array(integer + _OFFSETS[self.integer.name], self.integer)

    def _check_same_scale(self, node: Node) -> None:
        """See that an operator that moves integers as they are has one scale on all sides."""
        tensors = self._quantized.spec.tensors
        own = tensors[node.name]
        for name in node.inputs:
            other = tensors[name]
            if (other.scale, other.zero_point) != (own.scale, own.zero_point):
                raise ConversionFailedError(
                    "the operator changes no scale, but the spec gives its tensors different ones",
                    where=node.source or node.name,
                    found=f"{other.scale} ({other.zero_point}) of {name!r}, "
                    f"{own.scale} ({own.zero_point}) here",
                    allowed="one scale and zero point for its inputs and its output",
                    next_step="quantize again; the spec of an older version may not have kept to this",
                )
