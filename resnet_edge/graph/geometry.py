"""Shapes, paddings and sliding windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

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
