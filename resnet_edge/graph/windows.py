"""Sliding windows over feature maps, for any number type: what float and integer execution have in common.

Maps are (N, height, width, channels) and already padded.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from resnet_edge.graph.geometry import Padding

    Number = TypeVar("Number", bound=np.number)
    Float = TypeVar("Float", bound=np.floating)

PATCH_BYTES = 32 * 2**20
"""Memory that a convolution may use for the patches it multiplies at a time."""

FEW_ROWS = 8
"""Products with fewer rows do not go to BLAS. They take as long as reading the weight does, so its threads
have nothing to win, and on a busy machine lose a hundredfold by waiting for each other."""


def padded(x: NDArray[Number], padding: Padding, value: float = 0.0) -> NDArray[Number]:
    """The map with rows and columns of ``value`` around it."""
    if not padding:
        return x
    rows, columns = (padding.top, padding.bottom), (padding.left, padding.right)
    return np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=value)


def convolve(
    x: NDArray[Float],
    weight: NDArray[Float],
    *,
    strides: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[Float]:
    """Cross-correlation with ``weight`` (kh, kw, in / groups, out), as matrix products over patches."""
    (kh, kw), (sh, sw), (dh, dw) = weight.shape[:2], strides, dilation
    windows = sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(1, 2))
    windows = windows[:, ::sh, ::sw, :, ::dh, ::dw]
    n, height, width, channels = windows.shape[:4]
    # The weight as one matrix a group: (groups, kh * kw * in / groups, out / groups).
    depth = kh * kw * weight.shape[2]
    matrices = weight.reshape(depth, groups, -1).transpose(1, 0, 2)
    out = np.empty((n, height, width, weight.shape[3]), x.dtype)
    for images, rows in _chunks(n, height, PATCH_BYTES // (x.itemsize * width * channels * kh * kw)):
        part = windows[images, rows]
        patches = part.reshape(*part.shape[:3], groups, -1, kh, kw).transpose(3, 0, 1, 2, 5, 6, 4)
        product = matrix_product(patches.reshape(groups, -1, depth), matrices)
        out[images, rows] = product.transpose(1, 0, 2).reshape(*part.shape[:3], -1)
    return out


def matrix_product(rows: NDArray[Float], weight: NDArray[Float]) -> NDArray[Float]:
    """Matrix product of ``rows`` (..., n, depth) and ``weight`` (..., depth, out)."""
    if rows.shape[-2] < FEW_ROWS:
        return np.asarray(np.einsum("...nk,...ko->...no", rows, weight))
    return np.asarray(rows @ weight)


def _chunks(images: int, rows: int, budget: int) -> Iterator[tuple[slice, slice]]:
    """(images, rows) slices of at most ``budget`` rows of output in all, and never less than one."""
    row_step = min(max(budget, 1), rows)
    image_step = max(budget // rows, 1)
    for image in range(0, images, image_step):
        for row in range(0, rows, row_step):
            yield slice(image, image + image_step), slice(row, row + row_step)


def convolve_depthwise(
    x: NDArray[Float], weight: NDArray[Float], *, strides: tuple[int, int], dilation: tuple[int, int]
) -> NDArray[Float]:
    """Cross-correlation channel by channel with ``weight`` (kh, kw, in, multiplier)."""
    (kh, kw), (sh, sw), (dh, dw) = weight.shape[:2], strides, dilation
    height = (x.shape[1] - (kh - 1) * dh - 1) // sh + 1
    width = (x.shape[2] - (kw - 1) * dw - 1) // sw + 1
    out = np.zeros((len(x), height, width, *weight.shape[2:]), x.dtype)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dh, j * dw
            rows = slice(top, top + (height - 1) * sh + 1, sh)
            columns = slice(left, left + (width - 1) * sw + 1, sw)
            out += x[:, rows, columns, :, None] * weight[i, j]
    return out.reshape(len(x), height, width, -1)


def reduce_windows(
    join: Callable[[NDArray[Number], NDArray[Number]], NDArray[Number]],
    x: NDArray[Number],
    *,
    size: tuple[int, int],
    strides: tuple[int, int],
) -> NDArray[Number]:
    """A reduction over sliding windows, first along their rows, then along their columns."""
    for axis, extent, stride in zip((1, 2), size, strides, strict=True):
        along = np.moveaxis(x, axis, 0)
        span = len(along) - extent + 1
        x = np.moveaxis(reduce(join, (along[i : i + span : stride] for i in range(extent))), 0, axis)
    return x
