"""Shapes, paddings and sliding windows, and what operators ask of shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Shape: TypeAlias = tuple[int, ...]
"""A tensor's shape without its batch dimension."""


class ShapeError(ValueError):
    """An operator cannot take inputs of these shapes."""


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Rows and columns of zeros around a feature map."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return any((self.top, self.bottom, self.left, self.right))

    def __add__(self, other: Padding) -> Padding:
        return Padding(
            top=self.top + other.top,
            bottom=self.bottom + other.bottom,
            left=self.left + other.left,
            right=self.right + other.right,
        )

    @classmethod
    def same(
        cls,
        size: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int],
        dilation: Sequence[int] = (1, 1),
    ) -> Padding:
        """TensorFlow's SAME for a map of ``size`` (height, width): the odd row or column goes last."""
        (top, bottom), (left, right) = (
            _same(extent, (k - 1) * d + 1, s)
            for extent, k, s, d in zip(size, kernel, strides, dilation, strict=True)
        )
        return cls(top=top, bottom=bottom, left=left, right=right)


def _same(extent: int, window: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(extent / stride) - 1) * stride + window - extent, 0)
    return total // 2, total - total // 2


def window_count(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    padding: Padding,
) -> tuple[int, int]:
    """Height and width of the map that a sliding window leaves.

    Raises:
        ShapeError: The window is larger than the padded map.
    """
    padded = (size[0] + padding.top + padding.bottom, size[1] + padding.left + padding.right)
    windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padded[0] < windows[0] or padded[1] < windows[1]:
        raise ShapeError(
            f"a window of {windows[0]}x{windows[1]} does not fit the padded map of {padded[0]}x{padded[1]}"
        )
    height, width = ((p - w) // s + 1 for p, w, s in zip(padded, windows, strides, strict=True))
    return height, width


def only(inputs: Sequence[Shape]) -> Shape:
    """The one input's shape.

    Raises:
        ShapeError: There is none, or more than one.
    """
    if len(inputs) != 1:
        raise ShapeError(f"takes one input, got {len(inputs)}")
    return inputs[0]


def feature_map(inputs: Sequence[Shape]) -> tuple[int, int, int]:
    """The one input's height, width and channels.

    Raises:
        ShapeError: There is not one input, or it is no feature map.
    """
    shape = only(inputs)
    if len(shape) != 3:
        raise ShapeError(f"takes a feature map (height, width, channels), got {shape}")
    return shape[0], shape[1], shape[2]


def per_channel(inputs: Sequence[Shape], channels: int) -> Shape:
    """The one input's shape, for an operator with a constant a channel.

    Raises:
        ShapeError: There is not one input, or its last dimension is not ``channels``.
    """
    shape = only(inputs)
    if shape[-1] != channels:
        raise ShapeError(f"has {channels} channels, its input has {shape[-1]}")
    return shape


def broadcast(inputs: Sequence[Shape]) -> Shape:
    """The shape that two inputs of equal rank broadcast to.

    Raises:
        ShapeError: There are not two inputs, or they do not broadcast.
    """
    if len(inputs) != 2:
        raise ShapeError(f"takes two inputs, got {len(inputs)}")
    if len(inputs[0]) != len(inputs[1]):
        raise ShapeError(f"takes inputs of equal rank, got {inputs[0]} and {inputs[1]}")
    try:
        return tuple(int(extent) for extent in np.broadcast_shapes(*inputs))
    except ValueError as error:
        raise ShapeError(f"cannot broadcast {inputs[0]} and {inputs[1]}") from error
