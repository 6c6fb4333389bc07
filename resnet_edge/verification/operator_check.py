"""One operator's output against the reference on the same inputs: how far off it is, and how far it may be.

Integers may differ from the exact integer reference by one step, because runtimes round halves, and what is
all but a half, in ways of their own. Real numbers may differ by what another order of summation, or the
number of bits in which the runtime computes, makes of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.execution import execute_operator
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Operator,
)
from resnet_edge.graph.windows import padded, reduce_windows
from resnet_edge.quantization.integer import run_operator
from resnet_edge.quantization.integer_operators import dequantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from resnet_edge.engines import Kernels
    from resnet_edge.graph import Node
    from resnet_edge.quantization.integer import Tensor
    from resnet_edge.quantization.requantization import Kernels as Rounding
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.formats import FormatName

MOST_LSB = 1
"""Steps that an integer operator may be off."""

_SINGLE, _HALF = np.float32(2.0**-18), np.float32(2.0**-9)
"""Errors of float32 and float16 in proportion to what is summed. Each rounding costs 2 ** -24 and 2 ** -11;
the rest is for many of them, and for functions that runtimes approximate."""

_SMALLEST = np.float32(2.0**-14)
"""Below it a float16 loses bits."""

_SHIFTED = 0.5
"""Share of the elements off in one direction from which on it is no rounding, but another zero point: even
where every second result is a half, rounding moves a quarter of them one way."""

_FEWEST_SHIFTED = 100
"""Elements from which on such a share means something."""


def operator_name(op: Operator) -> str:
    """What people call an operator."""
    return op.function.value if isinstance(op, Elementwise) else type(op).__name__


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far an operator is off.

    Attributes:
        lsb: The largest difference in steps; None where the output is real numbers.
        is_allowed: Whether the kernels of a runtime may differ so.
    """

    lsb: int | None
    is_allowed: bool


def _is_shifted(steps: NDArray[np.int64]) -> bool:
    """Whether most elements are off the same way."""
    most = max(np.count_nonzero(steps > 0), np.count_nonzero(steps < 0))
    return bool(steps.size >= _FEWEST_SHIFTED and most > _SHIFTED * steps.size)


@dataclass(frozen=True, kw_only=True)
class OperatorCheck:
    """What the operators of a file are held against.

    Attributes:
        quantized: What the file was written from.
        format: Its format.
        kernels: What computes a ``.tflite`` file.
    """

    quantized: Quantized
    format: FormatName
    kernels: Kernels

    def expected(self, node: Node, inputs: Sequence[Tensor]) -> Tensor:
        """What the reference computes of these inputs."""
        return run_operator(self.quantized, node, inputs, kernels=self._rounding(node))

    def deviation(self, node: Node, inputs: Sequence[Tensor], output: Tensor) -> Deviation:
        """How far ``output`` is from what the reference computes of these inputs."""
        expected = self.expected(node, inputs)
        if expected.dtype.kind == "i":
            steps = output.astype(np.int64) - expected
            lsb = int(np.abs(steps).max())
            is_rounding = lsb <= MOST_LSB + self._further_steps(node, inputs) and not _is_shifted(steps)
            return Deviation(lsb=lsb, is_allowed=is_rounding)
        # What a damaged layer made NaN or infinite is no fault of those behind it.
        same = (expected == output) | (np.isnan(expected) & np.isnan(output))
        with np.errstate(invalid="ignore"):
            error = np.abs(expected - output)
        # Not error > limit: a new NaN is an error, too.
        within = error <= self._limit(node, inputs, expected)
        return Deviation(lsb=None, is_allowed=bool((same | within).all()))

    def _rounding(self, node: Node) -> Rounding:
        quant = self.quantized.spec.tensors.get(node.name)
        # XNNPACK has no kernels for int16.
        is_reference = self.kernels == "reference" or (quant is not None and quant.dtype == "int16")
        return "tflite-reference" if self.format == "tflite" and is_reference else "single"

    def _further_steps(self, node: Node, inputs: Sequence[Tensor]) -> int:
        """What it may cost that TFLite pools over uneven paddings, and takes them out of the mean afterwards.

        The mean that is rounded first is then multiplied by the window's size over what it sees of the image.
        """
        op = node.op
        if self.format != "tflite" or not isinstance(op, AveragePool2D):
            return 0
        image = inputs[0].shape[1:3]
        if op.padding in (Padding(), Padding.same(image, op.size, op.strides)):
            return 0
        ones = padded(np.ones((1, *image, 1)), op.padding)
        seen = reduce_windows(np.add, ones, size=op.size, strides=op.strides)
        return math.ceil(math.prod(op.size) / float(seen.min()) / 2)

    def _limit(
        self, node: Node, inputs: Sequence[Tensor], expected: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The largest error that the numbers' own precision explains, of each element or of all."""
        spec = self.quantized.spec
        # Layers kept in float32 too: their inputs are seen in float16, also where the runtime did not round.
        in_half = self.format == "onnx" and spec.recipe == "fp16"
        real = [
            tensor if quant is None else dequantize(tensor, quant)
            for tensor, quant in zip(inputs, map(spec.tensors.get, node.inputs), strict=True)
        ]
        limit = (_HALF if in_half else _SINGLE) * (_SMALLEST + _magnitude(node.op, real, expected))
        weight = spec.constants.get(f"{node.name}/weight")
        if self.format == "tflite" and weight is not None and weight.dtype == "int8":
            limit = limit + self._dynamic_rounding(node, inputs[0])
        return limit

    def _dynamic_rounding(self, node: Node, x: Tensor) -> float:
        """What it costs that LiteRT rounds the input of a layer with int8 weights to 8 bits, too.

        Every input is off by half a step at most, and a step is at most a 127th of the largest of an image.
        """
        weight = np.abs(node.op.weights()["weight"])
        outputs = node.op.weights()["bias"].size
        return float(np.abs(x).max() / 127 / 2 * weight.reshape(-1, outputs).sum(axis=0).max())


def _magnitude(
    op: Operator, inputs: Sequence[NDArray[np.float32]], expected: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What an operator's rounding errors are in proportion to.

    Where products are summed, that is the sum of their magnitudes, which may be far above their sum's.
    """
    match op:
        case Conv2D() | DepthwiseConv2D() | Dense():
            weight, bias = np.abs(op.weight), np.abs(op.bias)
            positive = replace(op, weight=weight, bias=bias, activation=Activation.NONE)
            return execute_operator(positive, np.abs(inputs[0]))
        case BatchNorm():
            positive_norm = replace(op, gamma=np.abs(op.gamma), beta=np.abs(op.beta), mean=-np.abs(op.mean))
            return execute_operator(positive_norm, np.abs(inputs[0]))
    largest = [np.abs(tensor[np.isfinite(tensor)]).max(initial=0.0) for tensor in (*inputs, expected)]
    return np.asarray([max(largest)], np.float32)
