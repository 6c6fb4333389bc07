"""Moves a per-channel affine into the linear operators before or behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.operators import (
    Affine,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    GlobalAveragePool,
    LeakyRelu,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Upsample2D,
)
from resnet_edge.passes.base import ObstacleError, change, label
from resnet_edge.passes.channel_affine import ChannelAffine, Linear, PerChannel, append, fold_error, prepend
from resnet_edge.passes.wiring import producers, require_sole_consumers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from resnet_edge.graph import GraphEditor, Node
    from resnet_edge.graph.geometry import Shape
    from resnet_edge.pass_reports import Change

_AVERAGES = (AveragePool2D, GlobalAveragePool, Upsample2D)
"""Operators whose every output is a mean of values of one channel, with weights that sum to 1."""


def fold_backward(editor: GraphEditor, shapes: Mapping[str, Shape], node: Node, op: PerChannel) -> Change:
    """Fold ``node`` into the linear operator whose result it takes, and remove it.

    Operators that take means, or reshape and leave the last axis alone, may stand between: the affine passes
    them unchanged.

    Args:
        editor: The graph under change.
        shapes: Every tensor's shape by name.
        node: The affine's node.
        op: Its operator.

    Raises:
        ObstacleError: It cannot be done; nothing is changed.
    """
    *between, producer = producers(editor, node, lambda before: _commutes(before, shapes))
    if not isinstance(producer.op, Conv2D | DepthwiseConv2D | Dense):
        raise ObstacleError(f"follows {label(producer)}")
    require_sole_consumers(editor, [node, *between, producer])
    try:
        folded = append(producer.op, ChannelAffine.of(op))
    except ObstacleError as obstacle:
        raise ObstacleError(f"follows {label(producer)}, but {obstacle}") from None
    error = fold_error([producer.op, op], folded)
    editor.set_op(producer.name, folded)
    editor.remove(node.name)
    return change(node, "folded backward", into=(producer.name,), max_abs_error=error)


def _commutes(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether an affine may as well come before the node."""
    if isinstance(node.op, Reshape):
        return shapes[node.inputs[0]][-1] == node.op.shape[-1]
    return isinstance(node.op, _AVERAGES)


def fold_forward(editor: GraphEditor, node: Node, op: PerChannel) -> Change:
    """Fold ``node`` into all the operators that take its result, and remove it.

    They are found behind operators that take means, reshape, slice or pad. Every path has to end in one.

    Args:
        editor: The graph under change.
        node: The affine's node.
        op: Its operator.

    Raises:
        ObstacleError: It cannot be done; nothing is changed.
    """
    folded: dict[str, Linear | PerChannel] = {}
    error = 0.0
    for target in _targets(editor, node.name, ChannelAffine.of(op)):
        merged = folded[target.name] = _taken_up(target)
        error = max(error, fold_error([target.affine.op(), target.op], merged))
    for name, merged in folded.items():
        editor.set_op(name, merged)
    editor.remove(node.name)
    return change(node, "folded forward", into=tuple(folded), max_abs_error=error)


@dataclass(frozen=True, kw_only=True)
class _Target:
    """An operator that can take up an affine, and what of the affine reaches it."""

    name: str
    op: Linear | PerChannel
    affine: ChannelAffine


def _targets(editor: GraphEditor, name: str, affine: ChannelAffine) -> Iterator[_Target]:
    """The operators that take what the tensor ``name`` holds."""
    users = editor.consumers(name)
    if editor.is_output(name) or not users:
        raise ObstacleError("nothing follows that could take it")
    for user in users:
        if isinstance(user.op, Conv2D | DepthwiseConv2D | Dense | BatchNorm | Affine):
            yield _Target(name=user.name, op=user.op, affine=affine)
        else:
            yield from _targets(editor, user.name, _passed_through(user, affine))


def _passed_through(user: Node, affine: ChannelAffine) -> ChannelAffine:
    """What an affine before ``user`` is behind it.

    Raises:
        ObstacleError: It is none.
    """
    op = user.op
    if isinstance(op, _AVERAGES):
        return affine
    match op:
        case Reshape() if op.shape[-1] % affine.scale.size == 0:
            # Row-major order: the channels follow each other along the new last axis.
            return affine.tiled(op.shape[-1])
        case Slice():
            channels = slice(op.begin[2], op.end[2], op.strides[2])
            return ChannelAffine(scale=affine.scale[channels], offset=affine.offset[channels])
        case Pad() if affine.offset.any():
            raise ObstacleError(f"{label(user)} adds zeros, which the offset does not reach")
        case Pad():
            return ChannelAffine(
                scale=np.pad(affine.scale, op.channels, constant_values=1),
                offset=np.pad(affine.offset, op.channels),
            )
        case Elementwise() | LeakyRelu() | PRelu():
            raise ObstacleError(f"its {label(user)} keeps it from the next convolution")
        case _:
            raise ObstacleError(f"feeds {label(user)}")


def _taken_up(target: _Target) -> Linear | PerChannel:
    op, affine = target.op, target.affine
    if isinstance(op, BatchNorm):
        return affine.then(ChannelAffine.of(op)).batch_norm()
    if isinstance(op, Affine):
        return affine.then(ChannelAffine.of(op)).op()
    try:
        return prepend(op, affine)
    except ObstacleError as obstacle:
        raise ObstacleError(f"{type(op).__name__} {target.name!r} {obstacle}") from None
