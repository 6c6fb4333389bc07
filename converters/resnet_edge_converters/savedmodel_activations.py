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
    from resnet_edge_converters.savedmodel_constants import NodeConstants

raw = tf.raw_ops

OFFSETS = {"int8": 0, "uint8": 128}
"""What an integer of the signature is more than the int8 that stands for the same number."""


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A node's output tensor, as the spec quantizes it.

    Scale and zero point are read from variables: what the checkpoint holds is what computes. TensorFlow's own
    ``fake_quant`` operators would move the scale, so that zero falls on a step, and know no limits inside the
    type's.

    Attributes:
        quant: The spec's limits.
        variable: Scale and zero point, float32 (2,).
    """

    quant: TensorQuant
    variable: tf.Variable

    def simulated(self, x: tf.Tensor) -> tf.Tensor:
        """What is left of real numbers after quantizing and dequantizing."""
        scale, zero_point = self._parameters()
        return raw.Mul(x=raw.Sub(x=self._quantized(x, scale, zero_point), y=zero_point), y=scale)

    def real(self, integers: tf.Tensor, offset: int) -> tf.Tensor:
        """The real numbers that integers of the signature stand for."""
        scale, zero_point = self._parameters()
        return (tf.cast(integers, tf.float32) - (zero_point + offset)) * scale

    def integers(self, x: tf.Tensor, dtype: str, offset: int) -> tf.Tensor:
        """Real numbers as integers of the signature."""
        return tf.cast(self._quantized(x, *self._parameters()) + offset, dtype)

    def _quantized(self, x: tf.Tensor, scale: tf.Tensor, zero_point: tf.Tensor) -> tf.Tensor:
        """Integers as float32, which holds them exactly; ties go to the even one, as in integer kernels."""
        steps = raw.AddV2(x=raw.Round(x=raw.RealDiv(x=x, y=scale)), y=zero_point)
        limits = {"clip_value_min": float(self.quant.qmin), "clip_value_max": float(self.quant.qmax)}
        return raw.ClipByValue(t=steps, **limits)

    def _parameters(self) -> list[tf.Tensor]:
        """Scale and zero point."""
        parameters: list[tf.Tensor] = raw.Unpack(value=self.variable.read_value(), num=2)
        return parameters


def activation(constants: NodeConstants, spec: QuantSpec) -> Activation | None:
    """A node's quantized output; None where it stays float."""
    quant = spec.tensors.get(constants.node.name)
    if quant is None:
        return None
    return Activation(
        quant=quant,
        variable=constants.variables[ACTIVATION],
    )


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
