"""Refuses weights that no format could carry to a meaningful result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.operators import BatchNorm
from resnet_edge.passes.channel_affine import ChannelAffine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.operators import Weight


def check_weights(graph: Graph) -> None:
    """Check that every constant is finite and every batch norm can be computed.

    Raises:
        ModelRejectedError: A weight is NaN or infinite, a variance is negative, or a batch norm's scale does
            not fit float32; names the tensor and how many of its values are meant.
    """
    for node in graph.nodes:
        for role, values in node.op.weights().items():
            _refuse(node, role, values, ~np.isfinite(values), "weights are not finite", "finite numbers")
        if isinstance(node.op, BatchNorm):
            _check_batch_norm(node, node.op)


def _check_batch_norm(node: Node, op: BatchNorm) -> None:
    variance = op.variance
    _refuse(node, "variance", variance, variance < 0, "a variance is negative", "0 or more")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        affine = ChannelAffine.of(op)
        scale, offset = affine.scale.astype(np.float32), affine.offset.astype(np.float32)
    _refuse(
        node,
        "variance",
        variance,
        ~(np.isfinite(scale) & np.isfinite(offset)),
        f"dividing by the root of variance + {op.epsilon:g} leaves the range of float32",
        "a larger variance or epsilon",
    )


def _refuse(node: Node, role: str, values: Weight, bad: NDArray[np.bool_], what: str, allowed: str) -> None:
    if bad.any():
        first = np.unravel_index(int(bad.argmax()), bad.shape)
        raise ModelRejectedError(
            what,
            where=f"{node.source or node.name}, {role} {values.shape}",
            found=f"{values[first]} at {tuple(map(int, first))}; {int(bad.sum())} of {bad.size} values",
            allowed=allowed,
            next_step="train the model again from a checkpoint whose loss was finite",
        )
