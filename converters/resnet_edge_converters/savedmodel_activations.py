"""Activations of a SavedModel that simulates integers: only the numbers that integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph import INPUT_NAME
from resnet_edge.tensorflow_import import tf
from resnet_edge_converters.savedmodel_constants import ACTIVATION

if TYPE_CHECKING:
    from resnet_edge.quantization.spec import Quantized, QuantSpec, TensorQuant
    from resnet_edge_converters.savedmodel_constants import NodeVariables

raw = tf.raw_ops

OFFSETS = {"int8": 0, "uint8": 128}
"""What an integer of the signature is more than the int8 that stands for the same number."""


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A node's output tensor, as the spec quantizes it.

    Scale and zero point are read from a variable: what the checkpoint holds is what computes. TensorFlow's
    own ``fake_quant`` operators would move the scale, so that zero falls on a step, and know no limits inside
    the type's.

    Attributes:
        quant: The spec's limits.
        scale: float32, scalar.
        zero_point: float32, scalar.
    """

    quant: TensorQuant
    scale: tf.Tensor
    zero_point: tf.Tensor

    def simulated(self, x: tf.Tensor) -> tf.Tensor:
        """What is left of real numbers after quantizing and dequantizing."""
        return raw.Mul(x=raw.Sub(x=self._quantized(x), y=self.zero_point), y=self.scale)

    def real(self, integers: tf.Tensor, offset: int) -> tf.Tensor:
        """The real numbers that integers of the signature stand for."""
        return (tf.cast(integers, tf.float32) - (self.zero_point + offset)) * self.scale

    def integers(self, x: tf.Tensor, dtype: str, offset: int) -> tf.Tensor:
        """Real numbers as integers of the signature."""
        return tf.cast(self._quantized(x) + offset, dtype)

    def _quantized(self, x: tf.Tensor) -> tf.Tensor:
        """Integers as float32, which holds them exactly; ties go to the even one, as in integer kernels."""
        steps = raw.AddV2(x=raw.Round(x=raw.RealDiv(x=x, y=self.scale)), y=self.zero_point)
        limits = {"clip_value_min": float(self.quant.qmin), "clip_value_max": float(self.quant.qmax)}
        return raw.ClipByValue(t=steps, **limits)


def read_activation(node: NodeVariables, spec: QuantSpec) -> Activation | None:
    """A node's quantized output, in the function that is being traced; None where it stays float."""
    quant = spec.tensors.get(node.node.name)
    if quant is None:
        return None
    scale, zero_point = raw.Unpack(value=node.variables[ACTIVATION].value(), num=2)
    return Activation(quant=quant, scale=scale, zero_point=zero_point)


def simulated(activation: Activation | None, x: tf.Tensor) -> tf.Tensor:
    """What an output is after its quantization, if it has one."""
    return x if activation is None else activation.simulated(x)


def check_border(quantized: Quantized) -> None:
    """See whether the signature can have the element type that the spec asks for.

    Raises:
        ConversionFailedError: The image or the output has no int8 form.
    """
    graph, spec = quantized.graph, quantized.spec
    if spec.io == "float32":
        return
    for name in (INPUT_NAME, graph.output):
        quant = spec.tensors.get(name)
        if quant is None or quant.dtype != "int8":
            raise ConversionFailedError(
                f"the SavedModel cannot take and give {spec.io}",
                where=graph.by_name[name].source or name,
                found="kept in float" if quant is None else f"quantized to {quant.dtype}",
                allowed="int8 at both ends of the graph",
                next_step="use --io float32, or the recipe int8 without an override for this layer",
            )
