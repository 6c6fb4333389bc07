"""Weights in TFLite's layout and back: output channels first, but last for a depthwise convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph.operators import Operator


def to_stored(op: Operator, role: str, value: NDArray[Any]) -> NDArray[Any]:
    """A constant of ``op`` as TFLite has it; a view where that is possible.

    Args:
        op: The operator that takes the constant.
        role: Which of its constants.
        value: In the graph's layout: (kh, kw, in / groups, out), (kh, kw, in, multiplier), (in, out).
    """
    if role == "weight" and isinstance(op, Conv2D):
        return value.transpose(3, 0, 1, 2)
    if role == "weight" and isinstance(op, DepthwiseConv2D):
        # (1, kh, kw, out): the output channels are in the same order.
        return value.reshape(1, *op.kernel, -1)
    if role == "weight" and isinstance(op, Dense):
        return value.T
    return value


def from_stored(op: Operator, role: str, value: NDArray[Any]) -> NDArray[Any]:
    """The inverse of :func:`to_stored`.

    Raises:
        ValueError: The constant has another size than the operator's own.
    """
    if role == "weight" and isinstance(op, Conv2D):
        return value.transpose(1, 2, 3, 0)
    if role == "weight" and isinstance(op, Dense):
        return value.T
    return value.reshape(op.weights()[role].shape)


def stored_channel_axis(op: Operator, role: str) -> int:
    """The dimension of a stored constant along which it has one scale a channel."""
    return 3 if role == "weight" and isinstance(op, DepthwiseConv2D) else 0
