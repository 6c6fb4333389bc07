"""The residual units: branch plus shortcut, post-activation (v1, v1.5) and pre-activation (v2).

He et al., "Deep Residual Learning for Image Recognition", 2015, and "Identity Mappings in Deep Residual
Networks", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

from resnet_edge.models.spec import Block, Shortcut

if TYPE_CHECKING:
    from resnet_edge.models.layers import LayerMaker
    from resnet_edge.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Where a unit sits and what it does to the map.

    Attributes:
        name: Prefix of its layers' names.
        filters: Base width of its stage, not yet scaled.
        stride: 2 where the map is halved.
        first: Whether it is its stage's first (only there do channels change).
    """

    name: str
    filters: int
    stride: int
    first: bool


@dataclass(frozen=True, kw_only=True)
class _Conv:
    """One convolution of a branch; ``norm`` names the batch norm after (v1) or before it (v2)."""

    name: str
    norm: str
    filters: int
    kernel: int
    stride: int = 1
    groups: int = 1
    last: bool

    def apply(self, make: LayerMaker, x: keras.KerasTensor) -> keras.KerasTensor:
        """The convolution of ``x``."""
        conventions = make.conventions
        return make.conv(
            x,
            self.name,
            self.filters,
            self.kernel,
            stride=self.stride,
            groups=self.groups,
            bias=conventions.outer_bias if self.last else conventions.inner_bias,
            ends_branch=self.last,
        )


def _branch(make: LayerMaker, unit: Unit, spec: ModelSpec) -> list[_Conv]:
    """The branch's convolutions in order."""
    width = make.channels(unit.filters)
    if spec.block is Block.BASIC:
        sizes = [(width, 3, unit.stride, 1), (width, 3, 1, 1)]
    else:
        inner = make.channels(unit.filters * spec.branch_width // 64, spec.groups)
        first, second = (1, unit.stride) if spec.stride_in_3x3 else (unit.stride, 1)
        out = make.channels(4 * unit.filters)
        sizes = [(inner, 1, first, 1), (inner, 3, second, spec.groups), (out, 1, 1, 1)]
    names = make.conventions.names
    return [
        _Conv(
            name=names.conv.format(unit=unit.name, i=index + 1),
            norm=names.norms[index].format(unit=unit.name),
            filters=filters,
            kernel=kernel,
            stride=stride,
            groups=groups,
            last=index == len(sizes) - 1,
        )
        for index, (filters, kernel, stride, groups) in enumerate(sizes)
    ]


def postactivation_unit(
    make: LayerMaker, x: keras.KerasTensor, unit: Unit, spec: ModelSpec
) -> keras.KerasTensor:
    """relu(shortcut(x) + norm(conv(... relu(norm(conv(x))))))."""
    *inner, last = _branch(make, unit, spec)
    y = x
    for conv in inner:
        y = make.norm_relu(conv.apply(make, y), conv.norm)
    y = make.norm(last.apply(make, y), last.norm)
    if spec.squeeze_excitation:
        y = make.gate(y, f"{unit.name}.se")
    shortcut = _shortcut(make, x, x, unit, last.filters, spec)
    total = keras.layers.Add(name=f"{unit.name}.add")([shortcut, y])
    return keras.layers.ReLU(name=f"{unit.name}.relu")(total)


def preactivation_unit(
    make: LayerMaker, x: keras.KerasTensor, unit: Unit, spec: ModelSpec
) -> keras.KerasTensor:
    """shortcut(x) + conv(relu(norm(... conv(relu(norm(x)))))); a projection starts at the first ReLU."""
    first, *others = _branch(make, unit, spec)
    activated = make.norm_relu(x, first.norm)
    y = first.apply(make, activated)
    for conv in others:
        y = conv.apply(make, make.norm_relu(y, conv.norm))
    shortcut = _shortcut(make, x, activated, unit, others[-1].filters, spec)
    return keras.layers.Add(name=f"{unit.name}.add")([shortcut, y])


def _shortcut(
    make: LayerMaker,
    x: keras.KerasTensor,
    activated: keras.KerasTensor,
    unit: Unit,
    filters: int,
    spec: ModelSpec,
) -> keras.KerasTensor:
    """``x`` itself where the branch keeps its shape, else ``x`` padded or ``activated`` projected."""
    if unit.first and (unit.stride > 1 or x.shape[-1] != filters):
        if spec.shortcut is Shortcut.PAD:
            return make.pad_shortcut(x, f"{unit.name}.shortcut", filters, unit.stride)
        return _projection(make, activated, unit, filters, spec)
    if unit.stride > 1:
        # keras.applications' v2 models stride in a stage's last unit, which keeps its channels.
        return keras.layers.MaxPooling2D(1, strides=unit.stride, name=f"{unit.name}.stride")(x)
    return x


def _projection(
    make: LayerMaker, x: keras.KerasTensor, unit: Unit, filters: int, spec: ModelSpec
) -> keras.KerasTensor:
    names, bias = make.conventions.names, make.conventions.outer_bias
    if spec.deep_stem:
        # ResNet-D: average before a 1x1 convolution that would otherwise skip three pixels of four.
        if unit.stride > 1:
            pool = keras.layers.AveragePooling2D(2, padding="same", name=f"{unit.name}.downsample.0")
            x = pool(x)
        x = make.conv(x, f"{unit.name}.downsample.1", filters, 1, bias=bias)
        return make.norm(x, f"{unit.name}.downsample.2")
    x = make.conv(x, names.projection.format(unit=unit.name), filters, 1, stride=unit.stride, bias=bias)
    if make.conventions.projection_norm:
        x = make.norm(x, names.projection_norm.format(unit=unit.name))
    return x
