"""Weights and biases as integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D

if TYPE_CHECKING:
    from resnet_edge.quantization.recipes import WeightRange

Linear: TypeAlias = Conv2D | DepthwiseConv2D | Dense
"""The operators that have a weight and a bias."""

Scales: TypeAlias = NDArray[np.float32]
"""One float32 scale an output channel, or a single one for the tensor."""

CHANNEL_AXIS: dict[type[Linear], int] = {Conv2D: 3, DepthwiseConv2D: 2, Dense: 1}
"""Where a weight's output channels are; a depthwise weight's in its last two dimensions taken as one."""

QMAX = 127
"""Narrow range: -128 is never used, so that -q exists for every q and products stay small."""

MOST_WEIGHT_SUM = 2**22
"""Largest sum of |q| a channel: times 256, which bounds an int8 input less its zero point, half of int32."""

RANGE_SHARES = np.linspace(1.0, 0.5, 51)
"""Shares of the largest weight that the search tries as the range's end."""


def matrix(op: Linear) -> NDArray[np.float32]:
    """The weight as (taps, output channels), a view."""
    return op.weight.reshape(-1, op.bias.size)


def natural_scales(op: Linear, *, per_channel: bool, weight_range: WeightRange) -> NDArray[np.float64]:
    """The scales that the weights alone ask for: (channels,) or (1,); 0 where all weights are 0."""
    weight = matrix(op).astype(np.float64)
    if not per_channel:
        weight = weight.reshape(-1, 1)
    largest = np.abs(weight).max(axis=0)
    scales = largest / QMAX if weight_range == "max" else _least_squares(weight, largest)
    least = least_accumulating(op)
    return np.maximum(scales, least if per_channel else least.max())


def least_accumulating(op: Linear) -> NDArray[np.float64]:
    """The smallest scales, (channels,), with which no accumulator overflows."""
    total = np.abs(matrix(op).astype(np.float64)).sum(axis=0)
    # Rounding adds at most half a step a tap.
    return np.asarray(total / max(MOST_WEIGHT_SUM - len(matrix(op)) / 2, MOST_WEIGHT_SUM / 2))


def _least_squares(weight: NDArray[np.float64], largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each column the scale among ``RANGE_SHARES`` whose rounding and clipping error is least."""
    best = largest / QMAX
    least = np.full(largest.shape, np.inf)
    for share in RANGE_SHARES:
        scale = np.where(largest > 0, largest * share / QMAX, 1.0)
        error = ((np.clip(np.rint(weight / scale), -QMAX, QMAX) * scale - weight) ** 2).sum(axis=0)
        better = error < least
        least = np.where(better, error, least)
        best = np.where(better & (largest > 0), scale, best)
    return best


def quantize_weight(op: Linear, scales: Scales) -> NDArray[np.int8]:
    """The weight as narrow int8 in the graph's layout, rounded half to even."""
    integers = np.rint(matrix(op).astype(np.float64) / scales)
    return np.asarray(np.clip(integers, -QMAX, QMAX), np.int8).reshape(op.weight.shape)


def dequantize_weight(op: Linear, integers: NDArray[np.int8], scales: Scales) -> NDArray[np.float64]:
    """The real numbers that the integers stand for, (taps, output channels)."""
    return np.asarray(integers.reshape(-1, op.bias.size) * scales.astype(np.float64))
