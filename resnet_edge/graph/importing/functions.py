"""Translation of ``keras.ops`` and of Python operators on tensors: what a custom ``call`` is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.importing.translation import (
    concat,
    dense,
    leaky_relu,
    pair,
    per_channel,
    reduce_map,
    relu,
    reshape,
    softmax,
    window_padding,
)
from resnet_edge.graph.importing.walk import Call, Tensor, Translator, constant, weight
from resnet_edge.graph.operators import (
    Add,
    Affine,
    AveragePool2D,
    BatchNorm,
    Concat,
    Conv2D,
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
    Slice,
    Subtract,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _argument(call: Call, position: int, name: str, default: Any = None) -> Any:
    """An argument of the call, given by position or by name, or a setting of the operation."""
    if len(call.args) > position:
        return call.args[position]
    return call.kwargs.get(name, getattr(call.operation, name, default))


def _function(function: Function) -> Translator:
    def translate(call: Call) -> Tensor:
        return call.emit(Elementwise(function=function), call.tensor)

    return translate


def _affine(call: Call, tensor: Tensor, scale: Any, offset: Any) -> Tensor:
    op = Affine(scale=per_channel(call, scale, tensor), offset=per_channel(call, offset, tensor))
    return call.emit(op, tensor)


def _binary(
    make: Callable[[], Operator] | None,
    right_constant: Callable[[Any], tuple[Any, Any]],
    left_constant: Callable[[Any], tuple[Any, Any]] | None,
) -> Translator:
    """Arithmetic on two tensors, or on a tensor and a constant c, which is scale * x + offset in c."""

    def translate(call: Call) -> Tensor:
        left, right = _argument(call, 0, "x1"), _argument(call, 1, "x2")
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            if make is None:
                raise call.rejected("divides a tensor by a tensor", allowed="division by a constant")
            return call.emit(make(), left, right)
        if isinstance(left, Tensor):
            return _affine(call, left, *right_constant(constant(right)))
        if left_constant is None:
            raise call.rejected("divides a constant by a tensor", allowed="division by a constant")
        return _affine(call, right, *left_constant(constant(left)))

    return translate


def _negative(call: Call) -> Tensor:
    return _affine(call, call.tensor, -1.0, 0.0)


def _maximum(call: Call) -> Tensor:
    """maximum(x, 0) is ReLU."""
    constants = [value for value in (_argument(call, 0, "x1"), _argument(call, 1, "x2")) if value is not None]
    numbers = [constant(value) for value in constants if not isinstance(value, Tensor)]
    if len(numbers) != 1 or (numbers[0] != 0).any():
        raise call.rejected("the maximum of something other than a tensor and 0", allowed="maximum(x, 0)")
    return call.emit(Elementwise(function=Function.RELU), call.tensor)


def _clip(call: Call) -> Tensor:
    low, high = (float(constant(_argument(call, at, name))) for at, name in enumerate(("x_min", "x_max"), 1))
    if (low, high) != (0.0, 6.0):
        raise call.rejected(f"clips to [{low}, {high}]", allowed="[0, 6], which is ReLU6")
    return call.emit(Elementwise(function=Function.RELU6), call.tensor)


def _check_layout(call: Call) -> None:
    if call.operation.data_format == "channels_first":
        raise call.rejected("channels_first", allowed="channels_last (N, height, width, channels)")


def _kernel(call: Call) -> tuple[Tensor, np.ndarray[Any, np.dtype[np.float32]]]:
    _check_layout(call)
    tensor, kernel = _argument(call, 0, "inputs"), _argument(call, 1, "kernel")
    if isinstance(kernel, Tensor):
        raise call.rejected("a kernel that depends on the image", allowed="constant weights")
    return tensor, weight(kernel)


def _conv(call: Call) -> Tensor:
    tensor, kernel = _kernel(call)
    op, strides, dilation = call.operation, pair(call.operation.strides), pair(call.operation.dilation_rate)
    return call.emit(
        Conv2D(
            weight=kernel,
            bias=np.zeros(kernel.shape[3], np.float32),
            strides=strides,
            padding=window_padding(call, op.padding, tensor.shape, kernel.shape[:2], strides, dilation),
            dilation=dilation,
            groups=tensor.shape[-1] // kernel.shape[2],  # keras.ops.conv implies the groups
        ),
        tensor,
    )


def _depthwise(call: Call) -> Tensor:
    tensor, kernel = _kernel(call)
    op, strides, dilation = call.operation, pair(call.operation.strides), pair(call.operation.dilation_rate)
    return call.emit(
        DepthwiseConv2D(
            weight=kernel,
            bias=np.zeros(kernel.shape[2] * kernel.shape[3], np.float32),
            strides=strides,
            padding=window_padding(call, op.padding, tensor.shape, kernel.shape[:2], strides, dilation),
            dilation=dilation,
        ),
        tensor,
    )


def _matmul(call: Call) -> Tensor:
    tensor, kernel = _argument(call, 0, "x1"), _argument(call, 1, "x2")
    if not isinstance(tensor, Tensor) or isinstance(kernel, Tensor):
        raise call.rejected("a product other than tensor by constant matrix", allowed="matmul(x, weights)")
    matrix = weight(kernel)
    return dense(call, tensor, matrix, np.zeros(matrix.shape[1], np.float32))


def _batchnorm(call: Call) -> Tensor:
    tensor = _argument(call, 0, "x")
    if call.operation.axis not in (-1, len(tensor.shape)):
        raise call.rejected(f"axis {call.operation.axis}", allowed="-1, the channels")
    names = ("mean", "variance", "offset", "scale")
    given = [_argument(call, position, name) for position, name in enumerate(names, start=1)]
    defaults = (0.0, 1.0, 0.0, 1.0)
    mean, variance, beta, gamma = (
        per_channel(call, default if value is None else value, tensor)
        for value, default in zip(given, defaults, strict=True)
    )
    op = BatchNorm(
        gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=float(call.operation.epsilon)
    )
    return call.emit(op, tensor)


def _pool(kind: type[MaxPool2D | AveragePool2D]) -> Translator:
    def translate(call: Call) -> Tensor:
        _check_layout(call)
        op = call.operation
        size = pair(op.pool_size)
        strides = size if op.strides is None else pair(op.strides)
        padding = window_padding(call, op.padding, call.tensor.shape, size, strides)
        return call.emit(kind(size=size, strides=strides, padding=padding), call.tensor)

    return translate


def _reduce(kind: type[GlobalAveragePool | GlobalMaxPool]) -> Translator:
    def translate(call: Call) -> Tensor:
        axes = range(len(call.tensor.shape) + 1) if call.operation.axis is None else call.operation.axis
        return reduce_map(
            call, kind, axes=[int(axis) for axis in axes], keepdims=bool(call.operation.keepdims)
        )

    return translate


def _pad(call: Call) -> Tensor:
    op = call.operation
    fill = _argument(call, 1, "constant_values")
    if op.mode != "constant" or (fill is not None and float(constant(fill)) != 0.0):
        raise call.rejected(f"pads with {op.mode} {fill}", allowed="zeros")
    widths = op.pad_width if np.ndim(op.pad_width) == 2 else [op.pad_width] * (len(call.tensor.shape) + 1)
    if len(widths) != 4 or any(widths[0]):
        raise call.rejected(f"pads by {widths}", allowed="height, width and channels of a map")
    (top, bottom), (left, right), (before, after) = ((int(a), int(b)) for a, b in widths[1:])
    return call.emit(
        Pad(padding=Padding(top=top, bottom=bottom, left=left, right=right), channels=(before, after)),
        call.tensor,
    )


def _getitem(call: Call) -> Tensor:
    tensor, key = call.args[0], _argument(call, 1, "key")
    keys = list(key) if isinstance(key, tuple | list) else [key]
    if Ellipsis in keys:
        at, rank = keys.index(Ellipsis), len(tensor.shape) + 1
        keys[at : at + 1] = [slice(None)] * (rank - len(keys) + 1)
    keys += [slice(None)] * (len(tensor.shape) + 1 - len(keys))
    one_channel = isinstance(keys[-1], int)
    if one_channel:
        keys[-1] = slice(keys[-1], keys[-1] + 1 or None)
    if len(keys) != 4 or keys[0] != slice(None) or not all(isinstance(part, slice) for part in keys):
        raise call.rejected(
            f"indexes {key}", allowed="slices of height, width and channels: x[:, a:b:c, ...]"
        )
    if keys[1:] == [slice(None), slice(None), slice(None, None, -1)]:
        return _select_channels(call, tensor, range(tensor.shape[-1])[::-1])
    sliced = call.emit(_slice(call, key, keys[1:], tensor), tensor)
    return reshape(call, sliced, sliced.shape[:2]) if one_channel else sliced


def _slice(call: Call, key: Any, parts: Sequence[slice], tensor: Tensor) -> Slice:
    ranges = [range(*part.indices(extent)) for part, extent in zip(parts, tensor.shape, strict=True)]
    if any(part.step < 1 or not part for part in ranges):
        raise call.rejected(f"indexes {key}", allowed="forward slices that leave something")
    height, width, channels = ranges
    return Slice(
        begin=(height.start, width.start, channels.start),
        end=(height.stop, width.stop, channels.stop),
        strides=(height.step, width.step, channels.step),
    )


def _select_channels(call: Call, tensor: Tensor, channels: Sequence[int]) -> Tensor:
    """Channels in another order, such as BGR for RGB: a 1x1 convolution with a selection matrix."""
    selection = np.eye(tensor.shape[-1], dtype=np.float32)[:, list(channels)]
    return call.emit(Conv2D(weight=selection[None, None], bias=np.zeros(len(channels), np.float32)), tensor)


def _stack(call: Call) -> Tensor:
    """Maps of one channel each, side by side: how keras.applications turns RGB into BGR."""
    maps = call.tensors
    if call.operation.axis not in (-1, 3) or any(len(tensor.shape) != 2 for tensor in maps):
        raise call.rejected(f"stacks along axis {call.operation.axis}", allowed="channels x[..., i] along -1")
    picks = [call.builder.picked_channel(tensor) for tensor in maps]
    sources = {source for source, _ in picks}
    source = sources.pop()
    if source is not None and not sources:
        return _select_channels(call, source, [channel for _, channel in picks])
    return call.emit(Concat(), *(reshape(call, tensor, (*tensor.shape, 1)) for tensor in maps))


def _reshape(call: Call) -> Tensor:
    newshape: Sequence[Any] = call.operation.newshape
    if newshape[0] not in (-1, None):
        raise call.rejected(f"reshapes the batch to {newshape[0]}", allowed="-1 or None in the first place")
    return reshape(call, call.tensor, newshape[1:])


def _squeeze(call: Call) -> Tensor:
    axis = call.operation.axis
    axes = [axis] if isinstance(axis, int) else list(axis or ())
    rank = len(call.tensor.shape) + 1
    dropped = {int(each) % rank for each in axes}
    if not dropped or 0 in dropped or any(call.tensor.shape[each - 1] != 1 for each in dropped):
        raise call.rejected(
            f"squeezes axis {axis}", allowed="axes of length 1, named one by one, not the batch"
        )
    return reshape(
        call, call.tensor, [extent for at, extent in enumerate(call.tensor.shape, 1) if at not in dropped]
    )


def _expand(call: Call) -> Tensor:
    axis = call.operation.axis
    shape = (0, *call.tensor.shape)  # 0 stands for the batch
    axes = sorted(int(each) % (len(shape) + 1) for each in ([axis] if isinstance(axis, int) else axis))
    if len(axes) != 1 or axes[0] == 0:
        raise call.rejected(f"expands axis {axis}", allowed="one axis behind the batch")
    return reshape(call, call.tensor, [*shape[1 : axes[0]], 1, *shape[axes[0] :]])


def _transpose(call: Call) -> Tensor:
    axes = call.operation.axes
    if axes is None or axes[0] != 0:
        raise call.rejected(f"transposes by {axes}", allowed="an order that leaves the batch first")
    return call.emit(Permute(order=tuple(int(axis) - 1 for axis in axes[1:])), call.tensor)


def _cast(call: Call) -> Tensor:
    dtype = str(call.operation.dtype)
    if "float" not in dtype:
        raise call.rejected(
            f"casts to {dtype}", allowed="floating-point types; the graph computes in float32"
        )
    return call.tensor


def _identity(call: Call) -> Tensor:
    return call.tensor


FUNCTIONS: Mapping[str, Translator] = {
    "Add": _binary(Add, lambda c: (1.0, c), lambda c: (1.0, c)),
    "Amax": _reduce(GlobalMaxPool),
    "AveragePool": _pool(AveragePool2D),
    "BatchNorm": _batchnorm,
    "Cast": _cast,
    "Clip": _clip,
    "Concatenate": concat,
    "Conv": _conv,
    "ConvertToTensor": _identity,
    "Copy": _identity,
    "DepthwiseConv": _depthwise,
    "Divide": _binary(None, lambda c: (1.0 / c, 0.0), None),
    "ExpandDims": _expand,
    "GetItem": _getitem,
    "HardSigmoid": _function(Function.HARD_SIGMOID),
    "HardSilu": _function(Function.HARD_SWISH),
    "LeakyRelu": leaky_relu,
    "Matmul": _matmul,
    "Max": _reduce(GlobalMaxPool),
    "MaxPool": _pool(MaxPool2D),
    "Maximum": _maximum,
    "Mean": _reduce(GlobalAveragePool),
    "Multiply": _binary(Multiply, lambda c: (c, 0.0), lambda c: (c, 0.0)),
    "Negative": _negative,
    "Pad": _pad,
    "ReLU": relu,
    "Relu": _function(Function.RELU),
    "Relu6": _function(Function.RELU6),
    "Reshape": _reshape,
    "Sigmoid": _function(Function.SIGMOID),
    "Silu": _function(Function.SWISH),
    "Softmax": softmax,
    "Squeeze": _squeeze,
    "Stack": _stack,
    "StopGradient": _identity,
    "Subtract": _binary(Subtract, lambda c: (1.0, -c), lambda c: (-1.0, c)),
    "Tanh": _function(Function.TANH),
    "Transpose": _transpose,
    "TrueDivide": _binary(None, lambda c: (1.0 / c, 0.0), None),
}
"""Translators by class name of the operations behind ``keras.ops`` and ``keras.activations``."""
