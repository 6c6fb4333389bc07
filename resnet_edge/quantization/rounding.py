"""Weights rounded so that errors cancel in the layer's output, rather than each to its nearest integer.

Rounding weights w to v changes an output by (v - w) . x. Once its mean is in the bias, what is left is
(v - w)' C (v - w) with C the covariance of x, and the nearest integers minimize that only if C is diagonal.
Here weights are rounded one after the other, and those still open are moved to where they make up for the
error as well as they can.

Frantar and Alistarh, "Optimal Brain Compression", 2022; Frantar et al., "GPTQ", 2023, whose Cholesky form and
blocks this follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.quantization.weights import MOST_WEIGHT_SUM, QMAX, matrix, quantize_weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.quantization.input_moments import InputMoments
    from resnet_edge.quantization.weights import Linear, Scales

DAMPING = 0.01
"""Added to C's diagonal, as a share of its mean: what few images show of C is not exact."""

_BLOCK = 128
"""Weights that are rounded before the effect on all later ones is brought up to date."""


def round_weight(op: Linear, scales: Scales, moments: InputMoments) -> NDArray[np.int8]:
    """The weight as narrow int8 in the graph's layout, rounded for the inputs that the layer gets.

    Args:
        op: The operator.
        scales: (output channels,) or (1,).
        moments: Of the operator's input.
    """
    channels = op.bias.size
    groups = len(moments.covariance)
    steps = np.broadcast_to(scales.astype(np.float64), channels)
    # (taps, channels) in units of a step; the channels of a group are next to each other.
    wanted = (matrix(op).astype(np.float64) / steps).reshape(-1, groups, channels // groups)
    rounded = np.stack(
        [_round(wanted[:, group], moments.covariance[group]) for group in range(groups)], axis=1
    ).reshape(-1, channels)
    nearest = quantize_weight(op, scales).reshape(-1, channels)
    fits = np.abs(rounded).sum(axis=0) <= MOST_WEIGHT_SUM
    return np.asarray(np.where(fits, rounded, nearest), np.int8).reshape(op.weight.shape)


def _round(wanted: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integers (taps, channels) for real numbers of the same shape."""
    diagonal = np.diag(covariance)
    damping = DAMPING * diagonal.mean()
    if not damping > 0:
        return np.clip(np.rint(wanted), -QMAX, QMAX)
    # The inputs that vary most first: the others can make up for them.
    order = np.argsort(-diagonal, kind="stable")
    factor = _inverse_factor(covariance[np.ix_(order, order)], damping)
    left, rounded = wanted[order], np.empty_like(wanted)
    for start in range(0, len(order), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(order)))
        errors = np.empty_like(left[block])
        for row in range(block.start, block.stop):
            # A weight that is zero was perhaps pruned, and does not make up for others.
            integers = np.where(wanted[order[row]] == 0, 0, np.clip(np.rint(left[row]), -QMAX, QMAX))
            error = errors[row - start] = (left[row] - integers) / factor[row, row]
            left[row + 1 : block.stop] -= np.outer(factor[row, row + 1 : block.stop], error)
            rounded[order[row]] = integers
        left[block.stop :] -= factor[block, block.stop :].T @ errors
    return rounded


def _inverse_factor(covariance: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """The upper triangular U with U' U the inverse: row i says how open weights make up for weight i.

    With C = V V' and V upper triangular, the Cholesky factor of C in reversed order, U is V's inverse.
    """
    reverse = slice(None, None, -1)
    while True:
        damped = covariance + damping * np.eye(len(covariance))
        try:
            lower = np.linalg.cholesky(damped[reverse, reverse])
        except np.linalg.LinAlgError:
            # Sums in float32 left C slightly indefinite: fewer samples than taps, all of them alike.
            damping *= 10
        else:
            return np.asarray(np.linalg.inv(lower[reverse, reverse]))
