"""The algebra of scale * x + offset per channel, with the linear operators before and after it.

Everything is computed in float64 and rounded to float32 once, when an operator is made of it. The scale may
be negative or zero: nothing here divides by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.graph.execution import execute_operator
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import Affine, BatchNorm, Conv2D, Dense, DepthwiseConv2D
from resnet_edge.passes.base import ObstacleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnet_edge.graph.operators import Operator, Weight

Vector: TypeAlias = NDArray[np.float64]
Linear: TypeAlias = Conv2D | DepthwiseConv2D | Dense
PerChannel: TypeAlias = BatchNorm | Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelAffine:
    """scale * x + offset along the last axis; both float64 (channels,)."""

    scale: Vector
    offset: Vector

    @classmethod
    def of(cls, op: PerChannel) -> ChannelAffine:
        """What a batch norm or an ``Affine`` computes."""
        if isinstance(op, Affine):
            return cls(scale=op.scale.astype(np.float64), offset=op.offset.astype(np.float64))
        scale = op.gamma / np.sqrt(op.variance.astype(np.float64) + op.epsilon)
        return cls(scale=scale, offset=op.beta - op.mean * scale)

    def then(self, after: ChannelAffine) -> ChannelAffine:
        """This one followed by another."""
        return ChannelAffine(scale=self.scale * after.scale, offset=self.offset * after.scale + after.offset)

    def tiled(self, features: int) -> ChannelAffine:
        """The same for a last axis in which the channels follow each other several times."""
        times = features // self.scale.size
        return ChannelAffine(scale=np.tile(self.scale, times), offset=np.tile(self.offset, times))

    def op(self) -> Affine:
        """A node's operator of its own."""
        return Affine(scale=_rounded(self.scale), offset=_rounded(self.offset))

    def batch_norm(self) -> BatchNorm:
        """The same as a batch norm that normalizes nothing."""
        zeros = np.zeros(self.scale.size, np.float32)
        return BatchNorm(
            gamma=_rounded(self.scale),
            beta=_rounded(self.offset),
            mean=zeros,
            variance=zeros + 1,
            epsilon=0.0,
        )

    def depthwise(self) -> DepthwiseConv2D:
        """A node's operator of its own that every format has: one pixel, one filter a channel."""
        return DepthwiseConv2D(weight=_rounded(self.scale.reshape(1, 1, -1, 1)), bias=_rounded(self.offset))


def append(op: Linear, affine: ChannelAffine) -> Linear:
    """One operator for ``affine(op(x))``.

    With y = W x + b: s y + t = (s W) x + (s b + t), s and t per output channel.

    Raises:
        ObstacleError: The operator's activation comes between, or the weights would not fit float32.
    """
    if op.activation != "none":
        raise ObstacleError(f"{op.activation.value} comes between")
    per_output = op.weight.shape[2:] if isinstance(op, DepthwiseConv2D) else (-1,)
    return replace(
        op,
        weight=_rounded(op.weight * affine.scale.reshape(per_output)),
        bias=_rounded(op.bias * affine.scale + affine.offset),
    )


def prepend(op: Linear, affine: ChannelAffine) -> Linear:
    """One operator for ``op(affine(x))``.

    With y = W (s x + t) + b: (W s) x + (W t + b), s and t per input channel.

    Raises:
        ObstacleError: The operator pads with zeros, which the offset would have to reach; or the weights
            would not fit float32.
    """
    if not isinstance(op, Dense) and op.padding and affine.offset.any():
        raise ObstacleError("pads with zeros, which the offset does not reach")
    shift = op.weight * _per_input(op, affine.offset)
    # Summed over all but the outputs: the last axis, or the last two of a depthwise weight.
    outputs = 2 if isinstance(op, DepthwiseConv2D) else 1
    added = shift.sum(axis=tuple(range(shift.ndim - outputs))).reshape(-1)
    weight = op.weight * _per_input(op, affine.scale)
    return replace(op, weight=_rounded(weight), bias=_rounded(op.bias + added))


def _per_input(op: Linear, vector: Vector) -> Vector:
    """A vector over the input channels in a shape that multiplies the weight."""
    if not isinstance(op, Conv2D):
        return vector[:, None]
    per_group = vector.reshape(op.groups, -1)
    return np.repeat(per_group, op.weight.shape[3] // op.groups, axis=0).T


def _rounded(values: Vector) -> Weight:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise ObstacleError("the folded weights would not fit float32")
    return rounded


def fold_error(before: Sequence[Operator], after: Linear | PerChannel) -> float:
    """Largest difference between operators in a row and the one that replaces them.

    Both run in float32 on two seeded normal inputs of one window each.

    Raises:
        ObstacleError: One of them overflows.
    """
    x = expected = np.random.default_rng(0).normal(size=(2, *_probe_shape(after))).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for op in before:
            expected = execute_operator(_unpadded(op), expected)
        error = float(np.abs(execute_operator(_unpadded(after), x) - expected).max())
    if not np.isfinite(error):
        raise ObstacleError("the result would not fit float32")
    return error


def _unpadded(op: Operator) -> Operator:
    return replace(op, padding=Padding()) if isinstance(op, Conv2D | DepthwiseConv2D) else op


def _probe_shape(op: Linear | PerChannel) -> tuple[int, ...]:
    match op:
        case Conv2D() | DepthwiseConv2D():
            rows, columns = ((k - 1) * d + 1 for k, d in zip(op.kernel, op.dilation, strict=True))
            groups = op.groups if isinstance(op, Conv2D) else 1
            return rows, columns, op.weight.shape[2] * groups
        case Dense():
            return (op.weight.shape[0],)
        case BatchNorm():
            return op.gamma.shape
        case Affine():
            return op.scale.shape
