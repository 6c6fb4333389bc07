"""Bias correction: takes the mean error that rounded weights cause out of every channel.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2,
with the input means that calibration measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.operators import Conv2D, Dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph.geometry import Shape
    from resnet_edge.graph.operators import DepthwiseConv2D
    from resnet_edge.quantization.input_moments import InputMoments
    from resnet_edge.quantization.weights import Linear


def mean_shift(
    op: Linear, error: NDArray[np.float64], input_means: NDArray[np.float32], input_shape: Shape
) -> NDArray[np.float64]:
    """What an error of the weights adds to each output channel on average.

    Args:
        op: The operator.
        error: Rounded weights less real ones, (taps, output channels).
        input_means: Mean of each input channel, (channels,).
        input_shape: Of one image's input, without the batch.

    Returns:
        (output channels,), to be subtracted from the bias.
    """
    means = input_means.astype(np.float64)
    if isinstance(op, Dense):
        return np.asarray(means @ error)
    kh, kw = op.kernel
    seen = _coverage(op, input_shape)[:, :, None, None]
    shaped = error.reshape(op.weight.shape)
    if isinstance(op, Conv2D):
        # (kh, kw, in / groups, groups, out / groups) times the group's own channels.
        grouped = shaped.reshape(kh, kw, -1, op.groups, error.shape[1] // op.groups)
        of_group = means.reshape(op.groups, -1).T[None, None, :, :, None]
        return np.asarray((grouped * of_group * seen[..., None]).sum(axis=(0, 1, 2)).reshape(-1))
    return np.asarray((shaped * means[:, None] * seen).sum(axis=(0, 1)).reshape(-1))


def exact_shift(error: NDArray[np.float64], moments: InputMoments) -> NDArray[np.float64]:
    """As :func:`mean_shift`, from the mean under every tap: also right where a mean varies over the map."""
    groups, taps = moments.mean.shape
    return np.asarray(np.einsum("gt,tgc->gc", moments.mean, error.reshape(taps, groups, -1)).reshape(-1))


def _coverage(op: Conv2D | DepthwiseConv2D, shape: Shape) -> NDArray[np.float64]:
    """The share of output positions at which each tap of the kernel meets the map and not its padding."""
    outputs = op.infer([shape])
    first = (op.padding.top, op.padding.left)
    shares = []
    for axis in (0, 1):
        start = np.arange(outputs[axis])[None, :] * op.strides[axis] - first[axis]
        position = start + np.arange(op.kernel[axis])[:, None] * op.dilation[axis]
        shares.append(((position >= 0) & (position < shape[axis])).mean(axis=1))
    return np.asarray(np.outer(shares[0], shares[1]))
