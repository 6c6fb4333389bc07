"""What layers and functions of ``keras.ops`` have in common when they are translated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.graph.geometry import Padding, Shape
from resnet_edge.graph.importing.walk import constant
from resnet_edge.graph.operators import (
    Concat,
    Conv2D,
    Dense,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    LeakyRelu,
    Reshape,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from resnet_edge.graph.importing.walk import Call, Tensor


def pair(value: Any) -> tuple[int, int]:
    """Height and width from a number or a pair."""
    first, second = (value, value) if np.ndim(value) == 0 else value
    return int(first), int(second)


def window_padding(
    call: Call,
    padding: str,
    shape: Shape,
    kernel: Sequence[int],
    strides: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Padding:
    """Keras' ``"same"`` or ``"valid"`` in rows and columns, for an input of ``shape``."""
    if len(shape) != 3:
        raise call.rejected(f"an input of shape {shape}", allowed="(height, width, channels)")
    if padding == "valid":
        return Padding()
    if padding == "same":
        return Padding.same(shape[:2], kernel, strides, dilation)
    raise call.rejected(f"padding {padding!r}", allowed="valid, same")


def per_channel(call: Call, value: Any, tensor: Tensor) -> NDArray[np.float32]:
    """A constant as one float32 a channel of ``tensor``.

    Raises:
        ModelRejectedError: It differs along height or width, or does not broadcast.
    """
    array = np.asarray(constant(value), np.float64)
    channels = tensor.shape[-1]
    aligned = array.reshape((1,) * max(len(tensor.shape) + 1 - array.ndim, 0) + array.shape)
    rows = aligned.reshape(-1, aligned.shape[-1])
    if aligned.shape[-1] not in (1, channels) or not (rows == rows[0]).all():
        raise call.rejected(
            f"a constant of shape {array.shape} on a tensor of shape {tensor.shape}",
            allowed="one number, or one a channel",
        )
    return np.broadcast_to(rows[0], (channels,)).astype(np.float32)


def dense(call: Call, tensor: Tensor, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Tensor:
    """Matrix product along the last axis: Dense on a vector, a 1x1 convolution on a map (as in SE blocks)."""
    if len(tensor.shape) == 3:
        return call.emit(Conv2D(weight=weight[None, None], bias=bias), tensor)
    return call.emit(Dense(weight=weight, bias=bias), tensor)


def relu(call: Call) -> Tensor:
    """ReLU with Keras' three settings, of which ResNets use a few combinations."""
    settings = call.operation
    slope, threshold = float(settings.negative_slope or 0.0), float(settings.threshold or 0.0)
    maximum = settings.max_value
    if threshold == 0.0 and slope == 0.0 and maximum is None:
        return call.emit(Elementwise(function=Function.RELU), call.tensor)
    if threshold == 0.0 and slope == 0.0 and float(maximum) == 6.0:
        return call.emit(Elementwise(function=Function.RELU6), call.tensor)
    if threshold == 0.0 and maximum is None:
        return leaky_relu(call)
    raise call.rejected(
        f"negative_slope={slope}, max_value={maximum}, threshold={threshold}",
        allowed="ReLU, ReLU6 (max_value=6), leaky ReLU (negative_slope alone)",
    )


def leaky_relu(call: Call) -> Tensor:
    """Leaky ReLU."""
    return call.emit(LeakyRelu(alpha=float(call.operation.negative_slope)), call.tensor)


def softmax(call: Call) -> Tensor:
    """Softmax along the last axis."""
    tensor, axis = call.tensor, call.operation.axis
    if axis not in (-1, len(tensor.shape)):
        raise call.rejected(f"axis {axis}", allowed="-1, the last axis")
    return call.emit(Elementwise(function=Function.SOFTMAX), tensor)


def concat(call: Call) -> Tensor:
    """Concatenation along the last axis."""
    tensors, axis = call.tensors, call.operation.axis
    if axis not in (-1, len(tensors[0].shape)):
        raise call.rejected(f"axis {axis}", allowed="-1, the channels")
    return call.emit(Concat(), *tensors)


def flatten(call: Call) -> Tensor:
    """All features in one vector, in row-major NHWC order."""
    return call.emit(Reshape(shape=(math.prod(call.tensor.shape),)), call.tensor)


def reshape(call: Call, tensor: Tensor, target: Sequence[Any]) -> Tensor:
    """Another shape without the batch; one -1 is resolved."""
    size = math.prod(tensor.shape)
    known = math.prod(extent for extent in target if extent not in (-1, None))
    shape = tuple(size // known if extent in (-1, None) else int(extent) for extent in target)
    return call.emit(Reshape(shape=shape), tensor)


def reduce_map(
    call: Call, kind: type[GlobalAveragePool | GlobalMaxPool], *, axes: Sequence[int], keepdims: bool
) -> Tensor:
    """A reduction over height and width; axes count from 0 with the batch."""
    rank = len(call.tensor.shape) + 1
    if rank != 4 or sorted(axis % rank for axis in axes) != [1, 2]:
        raise call.rejected(f"reduces axes {list(axes)} of {rank}", allowed="height and width (1, 2)")
    return call.emit(kind(keepdims=keepdims), call.tensor)
