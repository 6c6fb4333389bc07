"""What integer kernels can hold: scales are enlarged until no product, ratio or accumulator leaves its type.

The bounds are those of XNNPACK, the strictest of the runtimes: outside of them a file does not load, or an
operator silently falls back to slower kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.operators import (
    Add,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    Multiply,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.quantization.scales import ScaleGroup
    from resnet_edge.quantization.weights import Linear

MOST_MULTIPLIER = 255.0
"""XNNPACK: s_in * s_w / s_out, and s_in / s_out of an addition or mean, are less than 256."""
LEAST_MULTIPLIER = 2.0**-31
"""A smaller one shifts every accumulator to zero."""
LEAST_ADD_RATIO, LEAST_MEAN_RATIO, LEAST_PRODUCT_RATIO = 2.0**-10, 2.0**-8, 2.0**-16
"""XNNPACK: s_in / s_out of an addition or mean, and s_a * s_b / s_out of a product, are not below."""
LEAST_SOFTMAX_SCALE = 2.0**-24
"""TFLite's softmax takes its input as 5 integer bits and a multiplier above one."""
MOST_BIAS = 2**30
"""Half of int32; the other half is for the products (see ``weights.MOST_WEIGHT_SUM``)."""

_SLACK = 1 + 1e-6
"""Keeps float32 rounding of a scale on the right side of a bound."""
_MOST_SWEEPS = 200


def enforce(
    graph: Graph,
    integer: Iterable[str],
    group_of: Mapping[str, ScaleGroup],
    weight_scales: Mapping[str, NDArray[np.float64]],
) -> None:
    """Enlarge the groups' scales until every integer node is within its limits.

    Scales only grow, so that a fixed point is reached unless weights are absurdly large.

    Args:
        graph: The float graph.
        integer: Names of the nodes computed in integers.
        group_of: Every tensor's group; changed in place.
        weight_scales: What the weights ask for, by node name (see :func:`weights.natural_scales`).

    Raises:
        ModelRejectedError: There are no such scales; names the last node that asked for larger ones.
    """
    chosen = set(integer)
    nodes = [node for node in graph.nodes if node.name in chosen]
    for _ in range(_MOST_SWEEPS):
        grown = [node for node in nodes if _enlarge(node, group_of, weight_scales)]
        if not grown:
            return
    raise ModelRejectedError(
        "no scales are within the limits of integer kernels",
        where=f"layer {grown[-1].source or grown[-1].name!r}",
        next_step=f"keep it in float with --override '{grown[-1].name}=float', or use --recipe fp16",
    )


def _enlarge(
    node: Node,
    group_of: Mapping[str, ScaleGroup],
    weight_scales: Mapping[str, NDArray[np.float64]],
) -> bool:
    """Enlarge what one node needs larger; whether anything was."""
    inputs, output = [group_of[name] for name in node.inputs], group_of[node.name]
    needs: list[tuple[ScaleGroup, float]] = []
    match node.op:
        case Conv2D() | DepthwiseConv2D() | Dense():
            product = inputs[0].scale * weight_scales[node.name].max()
            bias = np.abs(node.op.bias).max() / MOST_BIAS
            needs = [(output, max(product, bias) / MOST_MULTIPLIER)]
        case Add():
            needs = [(output, group.scale / MOST_MULTIPLIER) for group in inputs]
            needs += [(group, output.scale * LEAST_ADD_RATIO) for group in inputs]
        case GlobalAveragePool():
            needs = [(output, inputs[0].scale / MOST_MULTIPLIER)]
            needs += [(inputs[0], output.scale * LEAST_MEAN_RATIO)]
        case Multiply():
            first, second = sorted(inputs, key=lambda group: group.fixed)
            needs = [(output, first.scale * second.scale / MOST_MULTIPLIER)]
            needs += [(first, output.scale * LEAST_PRODUCT_RATIO / second.scale)]
        case Elementwise(function=Function.SOFTMAX):
            needs = [(inputs[0], LEAST_SOFTMAX_SCALE)]
    too_small = [(group, scale) for group, scale in needs if group.scale < scale * (1 + 1e-7)]
    for group, scale in too_small:
        group.enlarge(scale * _SLACK)
    return bool(too_small)


def weight_scales_within(
    op: Linear, natural: NDArray[np.float64], *, input_scale: float, output_scale: float
) -> NDArray[np.float32]:
    """The weight's scales, enlarged where bias or multiplier would leave their types.

    A channel whose weights are all zero gets the scale that its bias needs.

    Returns:
        Normal float32 numbers above zero, of ``natural``'s shape.
    """
    bias = np.abs(op.bias.astype(np.float64))
    least = np.maximum(bias / MOST_BIAS, LEAST_MULTIPLIER * output_scale) / input_scale * _SLACK
    if natural.size == 1:
        least = least.max(keepdims=True)
    return np.where(natural >= least, natural, least).astype(np.float32)
