"""What sliding windows did to a map, backward: each cell gets back what the windows over it are given.

The transposes of what :mod:`resnet_edge.graph.windows` does, for derivatives: ``x`` is (N, height, width,
channels) with one pixel a window; the result is the padded map of ``size`` (height, width) under them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.windows import matrix_product, reduce_windows, taps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph.geometry import Padding
    from resnet_edge.graph.windows import Float


def padded_size(x: NDArray[Float], padding: Padding) -> tuple[int, int]:
    """Height and width of the map with its padding."""
    return x.shape[1] + padding.top + padding.bottom, x.shape[2] + padding.left + padding.right


def unpadded(x: NDArray[Float], padding: Padding) -> NDArray[Float]:
    """The map without its padding."""
    height, width = x.shape[1:3]
    return x[:, padding.top : height - padding.bottom, padding.left : width - padding.right]


def convolve_transposed(
    x: NDArray[Float],
    weight: NDArray[Float],
    *,
    size: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[Float]:
    """The transpose of a convolution with ``weight`` (kh, kw, in / groups, out), a matrix product a tap."""
    n, height, width, channels = x.shape
    kh, kw, depth = weight.shape[:3]
    rows = x.reshape(-1, groups, channels // groups).transpose(1, 0, 2)
    matrices = weight.reshape(kh, kw, depth, groups, -1).transpose(0, 1, 3, 4, 2)
    out = np.zeros((n, *size, groups * depth), x.dtype)
    for i, j, cells in taps((kh, kw), (height, width), strides=strides, dilation=dilation):
        product = matrix_product(rows, matrices[i, j])
        out[cells] += product.transpose(1, 0, 2).reshape(n, height, width, -1)
    return out


def convolve_depthwise_transposed(
    x: NDArray[Float],
    weight: NDArray[Float],
    *,
    size: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
) -> NDArray[Float]:
    """The transpose of a depthwise convolution with ``weight`` (kh, kw, in, multiplier)."""
    kh, kw, channels, multiplier = weight.shape
    by_filter = x.reshape(*x.shape[:3], channels, multiplier)
    out = np.zeros((len(x), *size, channels), x.dtype)
    for i, j, cells in taps((kh, kw), by_filter.shape[1:3], strides=strides, dilation=dilation):
        for m in range(multiplier):
            out[cells] += by_filter[..., m] * weight[i, j, :, m]
    return out


def spread(
    x: NDArray[Float], *, size: tuple[int, int], window: tuple[int, int], strides: tuple[int, int]
) -> NDArray[Float]:
    """The transpose of the sums over windows: every cell gets all that the windows over it are given."""
    out = np.zeros((len(x), *size, x.shape[3]), x.dtype)
    for _, _, cells in taps(window, x.shape[1:3], strides=strides):
        out[cells] += x
    return out


def to_maxima(
    x: NDArray[Float], of: NDArray[Float], *, window: tuple[int, int], strides: tuple[int, int]
) -> NDArray[Float]:
    """What a window is given, to its largest cell in the padded map ``of``; of equal ones, to the first."""
    maxima = reduce_windows(np.maximum, of, size=window, strides=strides)
    out = np.zeros_like(of)
    waiting = np.ones(x.shape, bool)
    for _, _, cells in taps(window, x.shape[1:3], strides=strides):
        wins = waiting & (of[cells] == maxima)
        out[cells] += np.where(wins, x, 0)
        waiting &= ~wins
    return out
