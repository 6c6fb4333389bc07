"""A Hypothesis strategy for residual networks as the import leaves them: nothing folded, nothing fused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Add,
    AveragePool2D,
    BatchNorm,
    Concat,
    Function,
    GlobalAveragePool,
    MaxPool2D,
    Multiply,
    Pad,
    Reshape,
    Slice,
)
from tests.graph_builder import GraphBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnet_edge.graph import Graph

    Block = Callable[["_Drawn", str], str]

_BORDER = Padding(top=1, bottom=1, left=1, right=1)


class _Drawn(GraphBuilder):
    """A builder whose choices Hypothesis draws, and can shrink."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        size = (draw(st.integers(4, 12)), draw(st.integers(4, 12)), draw(st.sampled_from([1, 3, 4])))
        super().__init__(size, seed=draw(st.integers(0, 2**16)))

    def maybe(self) -> bool:
        return self._draw(st.booleans())

    def pick(self, *options: int) -> int:
        return self._draw(st.sampled_from(options))

    def block(self, blocks: list[Block]) -> Block:
        return self._draw(st.sampled_from(blocks))

    def norm(self, x: str) -> str:
        """A batch norm: gammas of both signs, some zero; variances from 1e-12 to 10."""
        channels = self.shape(x)[-1]
        gamma = self.normal(channels)
        gamma[self.rng.random(channels) < 0.1] = 0
        smallest = self.pick(-12, -3)
        op = BatchNorm(
            gamma=gamma,
            beta=self.normal(channels),
            mean=self.normal(channels),
            variance=(10 ** self.rng.uniform(smallest, 1, channels)).astype(np.float32),
            epsilon=self._draw(st.sampled_from([1e-3, 1.001e-5, 1e-5])),
        )
        return self.add(op, x)

    def conv_norm(self, x: str, channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> str:
        size, strides = (kernel, kernel), (stride, stride)
        return self.norm(self.conv(x, channels, size, strides=strides, groups=groups, bias=self.maybe()))

    def relu(self, x: str) -> str:
        return self.function(x, Function.RELU6 if self.pick(0, 0, 0, 1) else Function.RELU)


def _v1(b: _Drawn, x: str) -> str:
    """He et al. 2015: conv, BN, ReLU, conv, BN, add, ReLU; projection shortcut where the shape changes."""
    channels, stride = b.pick(4, 6), b.pick(1, 2)
    y = b.relu(b.conv_norm(x, channels, stride=stride))
    y = b.conv_norm(y, channels)
    if b.shape(y) != b.shape(x):
        x = b.conv_norm(x, channels, 1, stride=stride)
    return b.relu(b.add(Add(), *((x, y) if b.maybe() else (y, x))))


def _v2(b: _Drawn, x: str) -> str:
    """He et al. 2016, pre-activation: the first BN follows an addition, its ReLU feeds block and shortcut."""
    channels, stride = b.pick(4, 6), b.pick(1, 2)
    active = b.relu(b.norm(x))
    y = b.relu(b.conv_norm(active, channels, stride=stride))
    y = b.conv(y, channels, bias=b.maybe())
    if b.shape(y) != b.shape(x):
        source = active if b.maybe() else x
        x = b.conv(source, channels, (1, 1), strides=(stride, stride))
    return b.add(Add(), x, y)


def _option_a(b: _Drawn, x: str) -> str:
    """The CIFAR networks' shortcut: every other pixel, zeros for the new channels."""
    height, width, channels = b.shape(x)
    y = b.relu(b.conv_norm(x, channels + 2, stride=2))
    y = b.conv_norm(y, channels + 2)
    half = b.add(Slice(begin=(0, 0, 0), end=(height, width, channels), strides=(2, 2, 1)), x)
    return b.relu(b.add(Add(), b.add(Pad(channels=(1, 1)), half), y))


def _grouped(b: _Drawn, x: str) -> str:
    y = b.relu(b.conv_norm(x, 4, 1))
    return b.relu(b.conv_norm(y, b.pick(4, 8), groups=b.pick(2, 4)))


def _separable(b: _Drawn, x: str) -> str:
    depthwise = b.depthwise(x, multiplier=b.pick(1, 2), strides=(b.pick(1, 2),) * 2)
    y = b.relu(b.norm(depthwise)) if b.maybe() else depthwise
    return b.relu(b.conv_norm(y, 4, 1))


def _after_relu(b: _Drawn, x: str) -> str:
    """BN behind the activation; what follows pads with zeros or does not."""
    normed = b.norm(b.relu(b.conv(x, 4)))
    return b.conv(normed, 4, (b.pick(1, 3),) * 2)


def _after_add(b: _Drawn, x: str) -> str:
    return b.norm(b.add(Add(), x, b.conv(x, b.shape(x)[-1])))


def _two_consumers(b: _Drawn, x: str) -> str:
    """A convolution that feeds its BN and something else."""
    shared = b.conv(x, b.shape(x)[-1])
    return b.add(Add(), b.norm(shared), b.relu(shared))


def _pad_valid(b: _Drawn, x: str) -> str:
    padded = b.add(Pad(padding=_BORDER if b.maybe() else Padding(bottom=2, right=1)), x)
    return b.relu(b.norm(b.conv(padded, 4, padding=Padding())))


def _pad_pool(b: _Drawn, x: str) -> str:
    x = b.relu(x) if b.maybe() else x
    return b.add(MaxPool2D(size=(3, 3), strides=(2, 2)), b.add(Pad(padding=_BORDER), x))


def _dense_block(b: _Drawn, x: str) -> str:
    """Huang et al. 2017: what a layer adds is put beside what came in."""
    return b.add(Concat(), x, b.conv_norm(b.relu(b.norm(x)), 3))


def _squeeze_excite(b: _Drawn, x: str) -> str:
    pooled = b.add(GlobalAveragePool(keepdims=True), x)
    gate = b.function(b.conv_norm(pooled, b.shape(x)[-1], 1), Function.SIGMOID)
    return b.add(Multiply(), x, gate)


def _pool_norm(b: _Drawn, x: str) -> str:
    return b.norm(b.add(AveragePool2D(size=(2, 2), strides=(b.pick(1, 2),) * 2), x))


def _scaled(b: _Drawn, x: str) -> str:
    """A constant factor on a branch, with or without an offset."""
    return b.affine(b.conv(x, 4), offset=b.maybe())


_BLOCKS: list[Block] = [
    _v1,
    _v2,
    _option_a,
    _grouped,
    _separable,
    _after_relu,
    _after_add,
    _two_consumers,
    _pad_valid,
    _pad_pool,
    _dense_block,
    _squeeze_excite,
    _pool_norm,
    _scaled,
]


def _pooled_head(b: _Drawn, x: str) -> str:
    pooled = b.add(GlobalAveragePool(), b.relu(b.norm(x)) if b.maybe() else x)
    return b.dense(b.norm(pooled) if b.maybe() else pooled)


def _hidden_head(b: _Drawn, x: str) -> str:
    """Dense, [ReLU,] BN, Dense behind a flattened map."""
    x = b.norm(x) if b.maybe() else x
    flat = b.add(Reshape(shape=(int(np.prod(b.shape(x))),)), x)
    hidden = b.dense(b.norm(flat) if b.maybe() else flat, 6)
    hidden = b.relu(hidden) if b.maybe() else hidden
    return b.dense(b.norm(hidden))


def _norm_at_end(b: _Drawn, x: str) -> str:
    dense = b.dense(b.add(GlobalAveragePool(), x))
    return b.norm(b.relu(dense) if b.maybe() else dense)


@st.composite
def residual_graphs(draw: st.DrawFn) -> Graph:
    """A network of one to three random residual blocks on an image of at most 12 x 12 pixels."""
    b = _Drawn(draw)
    x = b.image
    if b.maybe():
        x = b.affine(x, offset=b.maybe())
    if b.maybe():
        x = b.relu(b.conv_norm(x, 4))
    for _ in range(b.pick(1, 2, 3)):
        # A map that strides have made smaller than this leaves nothing to pool.
        if min(b.shape(x)[:2]) >= 3:
            x = b.block(_BLOCKS)(b, x)
    return b.graph(b.block([_pooled_head, _hidden_head, _norm_at_end])(b, x))
