"""Scales and zero points of activations, from the ranges that calibration observed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import DataRejectedError, ModelRejectedError
from resnet_edge.graph.operators import (
    Activation,
    Add,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    Input,
)
from resnet_edge.quantization.groups import is_fixed, keeps_scale
from resnet_edge.quantization.spec import TensorQuant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.operators import Operator
    from resnet_edge.quantization.spec import ActivationType
    from resnet_edge.quantization.statistics import Statistics

LIMITS: dict[ActivationType, tuple[int, int]] = {"int8": (-128, 127), "int16": (-32768, 32767)}

_FIXED = {"int8": (1 / 256, -128), "int16": (1 / 32768, 0)}
"""Scale and zero point of a sigmoid's or softmax's output."""

HEADROOM = 1.15
"""How much wider than calibration asks for ranges get that few values speak for: other images exceed them."""

FEW_POSITIONS = 64
"""Positions of a map up to which that is so: an image adds few values of a channel, or as in vectors one."""

_NEGLIGIBLE = 2.0**-40
_LARGEST = 2.0**40
"""Ranges beyond these are no signal; float32 scales inside have products and ratios that float32 holds."""


@dataclass(kw_only=True)
class ScaleGroup:
    """The tensors that share one scale, while scales are being settled.

    Attributes:
        low: Smallest value to represent, at most 0.
        high: Largest value to represent, at least 0.
        scale: Of one integer step; may be enlarged, and the range with it.
        zero_point: The integer that stands for 0.0.
        fixed: Whether the formats prescribe the scale.
    """

    low: float
    high: float
    scale: float = 0.0
    zero_point: int = 0
    fixed: bool = False

    def enlarge(self, scale: float) -> None:
        """Take a larger scale; the zero point stays, so the range grows in proportion.

        A prescribed scale stays as it is; whoever needs it larger keeps asking.
        """
        if not self.fixed:
            self.scale = float(np.float32(scale))

    def settle(self, dtype: ActivationType, scale: float) -> None:
        """Take a scale; the zero point is the integer nearest to where the range has its zero."""
        qmin, qmax = LIMITS[dtype]
        self.scale = float(np.float32(scale))
        if dtype == "int8":
            span = self.high - self.low
            share = -self.low / span if span > 0 else 0.5
            self.zero_point = qmin + round(share * (qmax - qmin))


def _stated_range(node: Node, statistics: Statistics) -> tuple[float, float]:
    """The range that the observer chose for a tensor, with 0, and within what a fused activation leaves.

    Raises:
        DataRejectedError: It is missing, not finite, or beyond any real activation.
    """
    try:
        low, high = (float(limit) for limit in statistics.ranges[node.name])
    except KeyError as error:
        raise DataRejectedError(
            "calibration saw another model", where=f"tensor {node.name!r}", next_step="calibrate again"
        ) from error
    if not (math.isfinite(low) and math.isfinite(high)) or max(-low, high) > _LARGEST:
        raise DataRejectedError(
            "the activations cannot be quantized",
            where=f"tensor {node.name!r} (layer {node.source or node.name!r})",
            found=f"values from {low:g} to {high:g} on the calibration images",
            allowed=f"finite values of at most {_LARGEST:g}",
            next_step="look for damaged weights, and for images that the model was not made for",
        )
    low, high = _within_activation(node.op, low, high)
    return min(low, 0.0), max(high, 0.0)


def _within_activation(op: Operator, low: float, high: float) -> tuple[float, float]:
    """What a fused activation leaves of a range."""
    bounds = (-math.inf, math.inf)
    if isinstance(op, Conv2D | DepthwiseConv2D | Dense | Add):
        bounds = _BOUNDS[op.activation]
    return min(max(low, bounds[0]), bounds[1]), min(max(high, bounds[0]), bounds[1])


_BOUNDS = {
    Activation.NONE: (-math.inf, math.inf),
    Activation.RELU: (0.0, math.inf),
    Activation.RELU6: (0.0, 6.0),
}


def initial_groups(
    graph: Graph,
    shared: Mapping[str, str],
    statistics: Statistics,
    dtype: ActivationType,
    *,
    tensors: frozenset[str],
    integer: frozenset[str],
    input_range: tuple[float, float] | None,
) -> dict[str, ScaleGroup]:
    """Every tensor's group, with the scales that their ranges ask for.

    A group's range is that of the tensors that come into being in it, not of those that only pass through.
    A group of zeros takes the smallest scale that any other has: it must not coarsen its neighbours.

    Raises:
        DataRejectedError: A range is not finite; names the tensor.
        ModelRejectedError: A prescribed scale meets tensors that do not fit it.
    """
    groups: dict[str, ScaleGroup] = {}
    for node in graph.nodes:
        if node.name not in tensors or (node.name in integer and keeps_scale(node.op)):
            continue
        low, high = _stated_range(node, statistics)
        if isinstance(node.op, Input):
            if input_range is not None:
                low, high = min(input_range[0], 0.0), max(input_range[1], 0.0)
        elif math.prod(graph.shapes[node.name][:-1]) <= FEW_POSITIONS:
            low, high = _within_activation(node.op, HEADROOM * low, HEADROOM * high)
        fixed = is_fixed(node.op) and node.name in integer
        group = groups.setdefault(shared[node.name], ScaleGroup(low=low, high=high, fixed=fixed))
        if group.fixed != fixed:
            raise _conflict(node)
        group.low, group.high = min(group.low, low), max(group.high, high)
    _settle_all(groups.values(), dtype)
    return {name: groups[shared[name]] for name in tensors}


def _settle_all(groups: Iterable[ScaleGroup], dtype: ActivationType) -> None:
    qmin, qmax = LIMITS[dtype]
    dead = []
    scales = []
    for group in groups:
        if group.fixed:
            group.scale, group.zero_point = _FIXED[dtype]
            continue
        if max(-group.low, group.high) < _NEGLIGIBLE:
            dead.append(group)
            continue
        steps = (group.high - group.low) / (qmax - qmin)
        scales.append(steps if dtype == "int8" else max(-group.low, group.high) / qmax)
        group.settle(dtype, scales[-1])
    for group in dead:
        group.low = group.high = 0.0
        group.settle(dtype, min(scales, default=1.0))


def _conflict(node: Node) -> ModelRejectedError:
    return ModelRejectedError(
        "a concatenation joins a sigmoid or softmax, whose scale is prescribed, with another tensor",
        where=f"layer {node.source or node.name!r}",
        next_step=f"keep it in float with --override '{node.name}=float'",
    )


def tensor_quants(
    graph: Graph,
    tensors: Iterable[str],
    group_of: Mapping[str, ScaleGroup],
    statistics: Statistics,
    dtype: ActivationType,
    *,
    integer: frozenset[str],
) -> dict[str, TensorQuant]:
    """The finished scales, in graph order, with the integers that can occur under fused activations."""
    wanted = set(tensors)
    found: dict[str, TensorQuant] = {}
    for node in graph.nodes:
        if node.name not in wanted:
            continue
        group = group_of[node.name]
        inputs = [found[name] for name in node.inputs] if node.name in integer else []
        qmin, qmax = _limits(node.op, inputs, group, dtype)
        found[node.name] = TensorQuant(
            dtype=dtype,
            scale=group.scale,
            zero_point=group.zero_point,
            qmin=qmin,
            qmax=qmax,
            observed=None if group.fixed else statistics.observed[node.name],
            images=statistics.images,
        )
    return found


def _limits(
    op: Operator, inputs: list[TensorQuant], group: ScaleGroup, dtype: ActivationType
) -> tuple[int, int]:
    """The smallest and largest integer of a tensor."""
    qmin, qmax = LIMITS[dtype]
    if keeps_scale(op) and inputs:
        qmin, qmax = min(quant.qmin for quant in inputs), max(quant.qmax for quant in inputs)
    activation = getattr(op, "activation", Activation.NONE)
    if isinstance(op, Elementwise) and op.function in (Function.RELU, Function.RELU6):
        activation = Activation(op.function.value)
    if activation is not Activation.NONE:
        qmin = max(qmin, group.zero_point)
    if activation is Activation.RELU6:
        six = np.float32(6.0) / np.float32(group.scale)
        qmax = max(qmin, min(qmax, group.zero_point + int(np.rint(six))))
    return qmin, qmax
