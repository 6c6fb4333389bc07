"""Fake quantization by the rules of our own integer kernels, as quantizers of tensorflow-model-optimization.

What tensorflow-model-optimization brings along leaves biases and depthwise kernels in float, and moves zero
points while it trains. Here every tensor of the spec is rounded as the exact integer reference rounds it,
biases at the step of the accumulator, and only the size of the steps is learned: a zero point is a matter of
signs, and with it fixed every rule about shared scales and fused activations keeps holding.

Rounding is passed straight through by gradients; a step gets the gradient of Esser et al., "Learned Step Size
Quantization", 2020, which follows from that by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.finetuning.frameworks import tf, tf_keras, tfmot
from resnet_edge.quantization.limits import LEAST_MULTIPLIER, MOST_BIAS
from resnet_edge.quantization.weights import QMAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from resnet_edge.quantization.spec import TensorQuant

MOST_DOUBLINGS = 1.0
"""A learned step stays between half and twice what calibration chose: within the kernels' limits, and never
at a collapse."""

_SNAP = 2.0**12
"""Parts of a step to which means are restored: finer than a mean over 2,000 can be near a half."""


class Step:
    """The step between neighbouring integers of the tensors that share one scale, learned or not.

    Args:
        start: What calibration chose.
        learned: Whether it is trained.
    """

    def __init__(self, start: float, *, learned: bool) -> None:
        self._start, self._learned = np.float32(start), learned
        self._doublings: Any = None

    def build(self, layer: Any) -> dict[str, Any]:
        """The variable, made by the first layer that asks and owned by it."""
        if self._doublings is None:
            self._doublings = layer.add_weight(
                "doublings", shape=(), initializer="zeros", trainable=self._learned
            )
        return {"doublings": self._doublings}

    def value(self) -> Any:
        """The step as a tensor; exactly the start before any training."""
        limited = tf.clip_by_value(self._doublings, -MOST_DOUBLINGS, MOST_DOUBLINGS)
        return self._start * tf.pow(2.0, limited)


def _rounded(x: Any) -> Any:
    """Whole numbers, a half to even; gradients pass as if nothing had happened."""
    return _passing(tf.round(x), x)


def _passing(value: Any, gradient: Any) -> Any:
    """One tensor's value with the gradient of another."""
    return gradient + tf.stop_gradient(value - gradient)


def _whole(x: Any, step: Any) -> Any:
    """A constant in whole steps, rounded as the export rounds it: in float64."""
    exact = tf.round(tf.cast(x, tf.float64) / tf.cast(step, tf.float64))
    return _passing(tf.cast(exact, tf.float32), x / step)


class TensorQuantizer(tfmot.quantization.keras.quantizers.Quantizer):  # type: ignore[misc] # untyped
    """A tensor as the real numbers that its integers stand for.

    Args:
        quant: Zero point and type.
        step: The scale.
        stored: Whether the integers are rounded as they are stored, zero point included: an average of stored
            integers has its halves there.
    """

    def __init__(self, quant: TensorQuant, step: Step, *, stored: bool) -> None:
        limits = np.iinfo(quant.dtype)
        self._step, self._zero, self._stored = step, float(quant.zero_point), stored
        self._low, self._high = limits.min - self._zero, limits.max - self._zero
        self.accumulator: Callable[[], Any] | None = None

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:  # noqa: ARG002 - the interface
        """The scale's variable."""
        return self._step.build(layer)

    def __call__(self, inputs: Any, training: Any, weights: Any, **_: Any) -> Any:  # noqa: ARG002
        """Round and clamp."""
        step = self._step.value()
        if self.accumulator is not None and not training:
            steps = self._requantized(inputs, self.accumulator(), step)
        elif self._stored:
            # A mean of integers is a half exactly or far from it: what float32 left of that is restored.
            steps = inputs / step
            steps = _passing(tf.round(steps * _SNAP) / _SNAP, steps)
            steps = _rounded(steps + self._zero) - self._zero
        else:
            steps = _rounded(inputs / step)
        return tf.clip_by_value(steps, self._low, self._high) * step

    @staticmethod
    def _requantized(sums: Any, fine: Any, step: Any) -> Any:
        """Sums of products in steps of the output, exactly as integer kernels come to them.

        Sums in float32 are off by far less than half a step of the accumulator, so that rounding gives the
        accumulator itself; one multiplication by a float32 ratio brings it to the output's steps. Training
        does without: what this changes is far below what a gradient sees.
        """
        accumulator = tf.cast(tf.round(sums / fine), tf.float64)
        return tf.cast(tf.round(accumulator * tf.cast(fine / step, tf.float64)), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Nothing: these models are never saved as such."""
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightScale:
    """How a layer's weight scales follow from its weights, as in the spec that training starts from.

    Attributes:
        shares: The range's end as a share of the largest weight: one a channel, or one for all.
        per_channel: Whether there is a scale a channel.
        source: The input's step.
        output: The output's step.
        mask: 0.0 where a weight is to stay zero, else 1.0; of the weight's shape.
    """

    shares: NDArray[np.float32]
    per_channel: bool
    source: Step
    output: Step
    mask: NDArray[np.float32] | None = None

    def values(self, weight: Any, bias: Any) -> Any:
        """The scales, (channels,) or (1,), from the layer's variables; no gradient goes through them."""
        columns = tf.reshape(tf.abs(weight), (-1, bias.shape[0]))
        largest = tf.reduce_max(columns, axis=0)
        natural = (largest if self.per_channel else tf.reduce_max(largest, keepdims=True)) / QMAX
        least = tf.maximum(tf.abs(bias) / MOST_BIAS, LEAST_MULTIPLIER * self.output.value())
        least = least / self.source.value()
        least = least if self.per_channel else tf.reduce_max(least, keepdims=True)
        return tf.stop_gradient(tf.maximum(self.shares * natural, least))

    def kept(self, weight: Any) -> Any:
        """The weight without what is to stay zero."""
        return weight if self.mask is None else weight * self.mask


class LayerConfig(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc] # untyped
    """How a layer is quantized.

    Args:
        output: Of its output; None where the output's integers are the input's, or it stays float.
        scale: Of its weight; None where it has none, or it stays float.

    Attributes:
        variables: The layer's weight and bias once it is built, if they are quantized.
    """

    def __init__(self, output: TensorQuantizer | None, scale: WeightScale | None) -> None:
        self._output, self._scale = output, scale
        self.variables: tuple[Any, Any] | None = None

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Weight and bias."""
        if self._scale is None:
            return []
        weight = layer.depthwise_kernel if _is_depthwise(layer) else layer.kernel
        self.variables = weight, layer.bias
        if self._output is not None:
            self._output.accumulator = self.accumulator_step
        return [
            (weight, _WeightQuantizer(self._scale, layer.bias)),
            (layer.bias, _BiasQuantizer(self._scale, weight)),
        ]

    def scales(self) -> Any:
        """The weight's scales as they are now."""
        assert self._scale is not None  # noqa: S101 - only asked of layers that have them
        assert self.variables is not None  # noqa: S101 - once the layer is built
        weight, bias = self.variables
        return self._scale.values(self._scale.kept(weight), bias)

    def accumulator_step(self) -> Any:
        """The real number that one unit of the accumulator stands for, a channel or for all."""
        assert self._scale is not None  # noqa: S101 - only asked of layers that have them
        return self._scale.source.value() * self.scales()

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Let the layer compute with quantized constants."""
        if quantize_weights:
            weight, layer.bias = quantize_weights
            if _is_depthwise(layer):
                layer.depthwise_kernel = weight
            else:
                layer.kernel = weight

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:  # noqa: ARG002
        """None: a fused activation comes before the output is quantized, as in the kernels."""
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """There are none."""
        del layer, quantize_activations

    def get_output_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
        """The output's."""
        return [] if self._output is None else [self._output]

    def get_config(self) -> dict[str, Any]:
        """Nothing: these models are never saved as such."""
        return {}


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, tf_keras.layers.DepthwiseConv2D)


class _ConstantQuantizer(tfmot.quantization.keras.quantizers.Quantizer):  # type: ignore[misc] # untyped
    """A weight or a bias; its scale follows from other variables, so it has none of its own.

    Args:
        scale: Of the layer's weight.
        other: The layer's other variable.
    """

    def __init__(self, scale: WeightScale, other: Any) -> None:
        self._scale, self._other = scale, other

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:  # noqa: ARG002
        """The steps of input and output, in case no layer has made them yet."""
        return self._scale.source.build(layer) | self._scale.output.build(layer)

    def get_config(self) -> dict[str, Any]:
        """Nothing: these models are never saved as such."""
        return {}


class _WeightQuantizer(_ConstantQuantizer):
    def __call__(self, inputs: Any, training: Any, weights: Any, **_: Any) -> Any:  # noqa: ARG002
        """Symmetric and narrow, one scale a channel or one for all."""
        kept, bias = self._scale.kept(inputs), self._other
        scales = self._scale.values(kept, bias)
        columns = tf.reshape(kept, (-1, bias.shape[0]))
        steps = tf.clip_by_value(_whole(columns, scales), -QMAX, QMAX)
        return tf.reshape(steps * scales, inputs.shape)


class _BiasQuantizer(_ConstantQuantizer):
    def __call__(self, inputs: Any, training: Any, weights: Any, **_: Any) -> Any:  # noqa: ARG002
        """At the accumulator's step."""
        steps = self._scale.source.value() * self._scale.values(self._scale.kept(self._other), inputs)
        return _whole(inputs, steps) * steps
