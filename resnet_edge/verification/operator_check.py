"""One operator's output against the reference on the same inputs: how far off it is, and how far it may be.

Integers may differ from the exact integer reference by one step, because runtimes round halves, and what is
all but a half, in ways of their own. Real numbers may differ by what another order of summation, or the
number of bits in which the runtime computes, makes of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import AveragePool2D, Elementwise, Operator
from resnet_edge.graph.windows import padded, reduce_windows
from resnet_edge.quantization.integer import run_operator
from resnet_edge.verification.proof import FLOAT_TOLERANCE, HALF_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from resnet_edge.engines.tflite import Kernels
    from resnet_edge.graph import Node
    from resnet_edge.quantization.integer import Tensor
    from resnet_edge.quantization.requantization import Kernels as Rounding
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.formats import FormatName

MOST_LSB = 1
"""Steps that an integer operator may be off."""


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
            lsb = int(np.abs(expected.astype(np.int64) - output).max())
            return Deviation(lsb=lsb, is_allowed=lsb <= MOST_LSB + self._further_steps(node, inputs))
        # What a damaged layer made NaN or infinite is no fault of those behind it.
        same = (expected == output) | (np.isnan(expected) & np.isnan(output))
        error = np.abs(expected[~same] - output[~same]).max(initial=0.0)
        # Not error > limit: a new NaN is an error, too.
        return Deviation(lsb=None, is_allowed=bool(error <= self._limit(node, inputs, expected)))

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

    def _limit(self, node: Node, inputs: Sequence[Tensor], expected: NDArray[np.float32]) -> float:
        """The largest error that the numbers' own precision explains."""
        spec = self.quantized.spec
        in_half = self.format == "onnx" and spec.recipe == "fp16" and node.name not in spec.kept_float
        tolerance = HALF_TOLERANCE if in_half else FLOAT_TOLERANCE
        limit = tolerance * float(np.abs(expected[np.isfinite(expected)]).max(initial=1.0))
        weight = spec.constants.get(f"{node.name}/weight")
        if self.format == "tflite" and weight is not None and weight.dtype == "int8":
            limit += self._dynamic_rounding(node, inputs[0])
        return limit

    def _dynamic_rounding(self, node: Node, x: Tensor) -> float:
        """What it costs that LiteRT rounds the input of a layer with int8 weights to 8 bits, too.

        Every input is off by half a step at most, and a step is at most a 127th of the largest of an image.
        """
        weight = np.abs(node.op.weights()["weight"])
        outputs = node.op.weights()["bias"].size
        return float(np.abs(x).max() / 127 / 2 * weight.reshape(-1, outputs).sum(axis=0).max())
