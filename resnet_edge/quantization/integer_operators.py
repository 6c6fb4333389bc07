"""Every tier-1 operator on integers: one function an operator, vectorized over the batch.

Activations are int8 or int16 arrays, (N, height, width, channels) or (N, features); constants are in the
graph's layout. Sums are formed in floating point by BLAS, which is exact as long as no partial sum leaves the
range in which every whole number has its own float.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.graph.execution import execute_operator
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool2D,
    Multiply,
    Operator,
    Pad,
    Permute,
    Reshape,
    Slice,
)
from resnet_edge.graph.windows import convolve, convolve_depthwise, matrix_product, padded, reduce_windows
from resnet_edge.quantization.fixed_point import Multiplier, multiply_twice_rounded
from resnet_edge.quantization.fixed_point_softmax import softmax_int8, softmax_int16
from resnet_edge.quantization.requantization import (
    ROUNDING,
    Float64,
    Kernels,
    Rounding,
    requantize,
    round_real,
)

if TYPE_CHECKING:
    from resnet_edge.quantization.spec import TensorQuant

Integers: TypeAlias = NDArray[np.signedinteger[Any]]
Weight: TypeAlias = NDArray[np.generic]

FLOAT32_WHOLE = 2**24
"""Up to here every whole number is a float32, and sums of them are exact in any order."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """A node's integers.

    Attributes:
        weight: int8, in the graph's layout.
        bias: int32 or int64, (out,).
        scales: float32, one or one an output channel.
    """

    weight: Weight
    bias: Weight
    scales: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an integer operator knows beside its inputs' integers.

    Attributes:
        inputs: How the inputs' integers are meant.
        output: How those of the result are.
        kernels: Whose rounding.
        constants: Weight and bias, for operators that have them.
    """

    inputs: tuple[TensorQuant, ...]
    output: TensorQuant
    kernels: Kernels
    constants: Constants | None = None

    def rounding(self, op: Operator) -> Rounding:
        """The operator's row of the table."""
        return ROUNDING[self.kernels, self.output.dtype][type(op)]


def quantize(x: NDArray[np.float32], quant: TensorQuant, rounding: Rounding) -> Integers:
    """Real numbers as integers: divided by the scale in float32, rounded, clamped to the type."""
    quotient = x / np.float32(quant.scale)
    return _stored(round_real(quotient, rounding), quant)


def dequantize(x: Integers, quant: TensorQuant) -> NDArray[np.float32]:
    """The float32 numbers that integers stand for."""
    return (x.astype(np.float32) - np.float32(quant.zero_point)) * np.float32(quant.scale)


def run_integer_operator(op: Operator, setting: Setting, *inputs: Integers) -> Integers:
    """One operator's output integers.

    Raises:
        NotImplementedError: The operator is not one of tier 1.
        ValueError: An operator that only moves integers would have to change their scale.
    """
    return _run(op, setting, *inputs)


@singledispatch
def _run(op: Operator, _setting: Setting, /, *_inputs: Integers) -> Integers:
    raise NotImplementedError(f"no integer execution of {type(op).__name__}")


def _stored(x: Float64, quant: TensorQuant, activation: Activation = Activation.NONE) -> Integers:
    """Whole numbers of steps above zero as the output's type, with the fused activation as a clamp."""
    limits = np.iinfo(quant.dtype)
    low = limits.min if activation is Activation.NONE else max(limits.min, quant.zero_point)
    high = limits.max
    if activation is Activation.RELU6:
        six = round_real(np.asarray(np.float32(6) / np.float32(quant.scale)), Rounding.AWAY)
        high = min(high, quant.zero_point + int(six))
    x += quant.zero_point
    stored: Integers = np.clip(x, low, high, out=x).astype(quant.dtype)
    return stored


def _steps(x: Integers, quant: TensorQuant, dtype: type[np.floating] = np.float64) -> NDArray[Any]:
    """Whole numbers of steps above zero."""
    return np.asarray(x.astype(dtype) - dtype(quant.zero_point))


def _ratio(setting: Setting, rounding: Rounding) -> NDArray[np.floating]:
    """Scale of a sum of products over the output's, a channel: in float32 where runtimes keep it so."""
    assert setting.constants is not None  # noqa: S101 - operators with weights have them
    dtype = np.float32 if rounding is Rounding.EVEN else np.float64
    source, output = (np.asarray(quant.scale, dtype) for quant in (setting.inputs[0], setting.output))
    return np.asarray(source * setting.constants.scales.astype(dtype) / output)


def _accumulated(op: Conv2D | DepthwiseConv2D | Dense, setting: Setting, x: Integers) -> Integers:
    """A sum of products with its bias, requantized."""
    assert setting.constants is not None  # noqa: S101 - operators with weights have them
    source, weight = setting.inputs[0], setting.constants.weight
    limits = np.iinfo(source.dtype)
    largest = max(limits.max - source.zero_point, source.zero_point - limits.min)
    outputs = weight.shape[-1] if not isinstance(op, DepthwiseConv2D) else weight.shape[2] * weight.shape[3]
    bound = largest * np.abs(weight.astype(np.int64)).reshape(-1, outputs).sum(axis=0).max()
    dtype = np.float32 if bound < FLOAT32_WHOLE else np.float64
    sums = _products(op, _steps(x, source, dtype), weight.astype(dtype))
    rounding = setting.rounding(op)
    accumulator = sums.astype(np.float64) + setting.constants.bias.astype(np.float64)
    return _stored(
        requantize(accumulator, _ratio(setting, rounding), rounding), setting.output, op.activation
    )


def _products(op: Conv2D | DepthwiseConv2D | Dense, x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    if isinstance(op, Dense):
        return matrix_product(x, weight)
    x = padded(x, op.padding)
    if isinstance(op, DepthwiseConv2D):
        return convolve_depthwise(x, weight, strides=op.strides, dilation=op.dilation)
    return convolve(x, weight, strides=op.strides, dilation=op.dilation, groups=op.groups)


_run.register(Conv2D, _accumulated)
_run.register(DepthwiseConv2D, _accumulated)
_run.register(Dense, _accumulated)


@_run.register
def _add(op: Add, setting: Setting, a: Integers, b: Integers, /) -> Integers:
    join = _sum_twice_rounded if setting.rounding(op) is Rounding.TWICE else _sum
    return _stored(join(setting, a, b), setting.output, op.activation)


def _sum(setting: Setting, *inputs: Integers) -> Float64:
    scaled = (_steps(x, quant) * quant.scale for x, quant in zip(inputs, setting.inputs, strict=True))
    return np.rint(sum(scaled) / setting.output.scale)


def _sum_twice_rounded(setting: Setting, *inputs: Integers) -> Float64:
    """Both inputs are brought to twice the larger scale, with bits to spare, then the sum to the output's."""
    spare = 20 if setting.output.dtype == "int8" else 15
    common = 2 * max(quant.scale for quant in setting.inputs)
    total = sum(
        multiply_twice_rounded(
            _steps(x, quant).astype(np.int64) << spare, Multiplier.of(quant.scale / common)
        )
        for x, quant in zip(inputs, setting.inputs, strict=True)
    )
    ratio = common / (2**spare * setting.output.scale)
    return multiply_twice_rounded(np.asarray(total), Multiplier.of(ratio)).astype(np.float64)


@_run.register
def _multiply(op: Multiply, setting: Setting, a: Integers, b: Integers, /) -> Integers:
    first, second = setting.inputs
    product = _steps(a, first) * _steps(b, second)
    # In this order and in float32, as every runtime does.
    ratio = np.float32(first.scale) * np.float32(second.scale) / np.float32(setting.output.scale)
    return _stored(requantize(product, np.asarray(ratio), setting.rounding(op)), setting.output)


@_run.register
def _average_pool(op: AveragePool2D, setting: Setting, x: Integers, /) -> Integers:
    source = _same_scale(op, setting)
    ones = np.ones((1, *x.shape[1:3], 1))
    # Runtimes average the integers as they are stored, so a half is rounded as that of the stored mean.
    sums, counts = (
        reduce_windows(np.add, padded(tensor, op.padding), size=op.size, strides=op.strides)
        for tensor in (x.astype(np.float64), ones)
    )
    mean = round_real(sums / counts, setting.rounding(op))
    return _stored(mean - source.zero_point, setting.output)


@_run.register
def _global_average_pool(op: GlobalAveragePool, setting: Setting, x: Integers, /) -> Integers:
    (source,) = setting.inputs
    count = x.shape[1] * x.shape[2]
    sums = _steps(x, source).sum(axis=(1, 2), keepdims=op.keepdims)
    ratio = source.scale / setting.output.scale
    if setting.rounding(op) is Rounding.TWICE:
        by = _divided(Multiplier.of(ratio), count)
        mean = multiply_twice_rounded(sums.astype(np.int64), by).astype(np.float64)
    else:
        mean = np.rint(sums * ratio / count)
    return _stored(mean, setting.output)


def _divided(by: Multiplier, count: int) -> Multiplier:
    """A multiplier over a count, cut off; the fraction first takes as many bits as the count has to lose."""
    bits = np.minimum(count.bit_length() - 1, 31 + by.shift)
    return Multiplier(fraction=(by.fraction << bits) // count, shift=by.shift - bits)


@_run.register
def _elementwise(op: Elementwise, setting: Setting, x: Integers, /) -> Integers:
    (source,) = setting.inputs
    rounding = setting.rounding(op)
    if op.function in (Function.RELU, Function.RELU6):
        ratio = np.asarray(np.float32(source.scale) / np.float32(setting.output.scale))
        activation = Activation(op.function.value)
        return _stored(requantize(_steps(x, source), ratio, rounding), setting.output, activation)
    if op.function is Function.SOFTMAX and rounding is Rounding.TWICE:
        softmax = softmax_int8 if source.dtype == "int8" else softmax_int16
        return softmax(x, source.scale)
    if op.function not in (Function.SIGMOID, Function.SOFTMAX):
        raise NotImplementedError(f"no integer execution of {op.function}")
    real = execute_operator(op, dequantize(x, source))
    # The kernels use tables of real values, rounded to the nearest.
    return quantize(real, setting.output, Rounding.EVEN if rounding is Rounding.EVEN else Rounding.AWAY)


def _same_scale(op: Operator, setting: Setting) -> TensorQuant:
    """The one scale of inputs and output.

    Raises:
        ValueError: They differ.
    """
    output = setting.output
    for quant in setting.inputs:
        if (quant.dtype, quant.scale, quant.zero_point) != (output.dtype, output.scale, output.zero_point):
            raise ValueError(f"{type(op).__name__} cannot change the scale of its input")
    return output


@_run.register
def _max_pool(op: MaxPool2D, setting: Setting, x: Integers, /) -> Integers:
    quant = _same_scale(op, setting)
    lowest = float(np.iinfo(quant.dtype).min)
    return reduce_windows(np.maximum, padded(x, op.padding, lowest), size=op.size, strides=op.strides)


@_run.register
def _pad(op: Pad, setting: Setting, x: Integers, /) -> Integers:
    zero = _same_scale(op, setting).zero_point
    around = op.padding
    widths = ((0, 0), (around.top, around.bottom), (around.left, around.right), op.channels)
    return np.pad(x, widths, constant_values=zero)


def _moved(op: Operator, setting: Setting, /, *inputs: Integers) -> Integers:
    """Operators that move or compare integers mean the same for integers and for real numbers."""
    _same_scale(op, setting)
    # Every int8 and int16 is a float32.
    moved = execute_operator(op, *(x.astype(np.float32) for x in inputs))
    integers: Integers = moved.astype(setting.output.dtype)
    return integers


for _mover in (Concat, GlobalMaxPool, Permute, Reshape, Slice):
    _run.register(_mover, _moved)
