"""A short way to write seeded graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph import INPUT_NAME, Graph, Node
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Affine,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    Input,
    Operator,
    Reshape,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph.geometry import Shape

CLASSES = 5


def images(graph: Graph, count: int = 2, *, seed: int = 0) -> NDArray[np.float32]:
    """Seeded model inputs of both signs."""
    return np.random.default_rng(seed).normal(size=(count, *graph.input_shape)).astype(np.float32)


class GraphBuilder:
    """Adds nodes one after the other; every method returns the new tensor's name.

    Weights are normal, scaled by the square root of the fan-in, so that activations stay near 1.
    """

    image = INPUT_NAME

    def __init__(self, shape: Shape, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self._nodes = [Node(name=INPUT_NAME, op=Input(shape=shape))]
        self._shapes = {INPUT_NAME: shape}

    def shape(self, name: str) -> Shape:
        """A tensor's shape."""
        return self._shapes[name]

    def normal(self, *shape: int, fan_in: int = 1) -> NDArray[np.float32]:
        """Seeded normal values with variance 1 / fan_in."""
        return self.rng.normal(0, fan_in**-0.5, shape).astype(np.float32)

    def add(self, op: Operator, *inputs: str, name: str = "") -> str:
        """A node; named after its operator and its position unless ``name`` is given."""
        name = name or f"{type(op).__name__.lower()}_{len(self._nodes)}"
        self._nodes.append(Node(name=name, op=op, inputs=inputs, source=name))
        self._shapes[name] = op.infer([self._shapes[source] for source in inputs])
        return name

    def conv(
        self,
        x: str,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        strides: tuple[int, int] = (1, 1),
        padding: Padding | None = None,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        bias: bool = True,
        activation: Activation = Activation.NONE,
        name: str = "",
    ) -> str:
        """A convolution, padded as TensorFlow's SAME does unless told otherwise."""
        height, width, depth = self.shape(x)
        shape = (*kernel, depth // groups, channels)
        op = Conv2D(
            weight=self.normal(*shape, fan_in=kernel[0] * kernel[1] * shape[2]),
            bias=self.normal(channels) if bias else np.zeros(channels, np.float32),
            strides=strides,
            padding=Padding.same((height, width), kernel, strides, dilation) if padding is None else padding,
            dilation=dilation,
            groups=groups,
            activation=activation,
        )
        return self.add(op, x, name=name)

    def depthwise(
        self,
        x: str,
        kernel: tuple[int, int] = (3, 3),
        *,
        multiplier: int = 1,
        strides: tuple[int, int] = (1, 1),
        padding: Padding | None = None,
        dilation: tuple[int, int] = (1, 1),
        activation: Activation = Activation.NONE,
        name: str = "",
    ) -> str:
        """A depthwise convolution, padded as TensorFlow's SAME does unless told otherwise."""
        height, width, depth = self.shape(x)
        op = DepthwiseConv2D(
            weight=self.normal(*kernel, depth, multiplier, fan_in=kernel[0] * kernel[1]),
            bias=self.normal(depth * multiplier),
            strides=strides,
            padding=Padding.same((height, width), kernel, strides, dilation) if padding is None else padding,
            dilation=dilation,
            activation=activation,
        )
        return self.add(op, x, name=name)

    def dense(
        self, x: str, features: int = CLASSES, *, activation: Activation = Activation.NONE, name: str = ""
    ) -> str:
        """A dense layer."""
        (depth,) = self.shape(x)
        weight = self.normal(depth, features, fan_in=depth)
        return self.add(Dense(weight=weight, bias=self.normal(features), activation=activation), x, name=name)

    def batch_norm(
        self, x: str, *, epsilon: float = 1e-3, variance: float | None = None, name: str = ""
    ) -> str:
        """A batch norm with gammas of both signs; variances from 0.001 to 10 unless one is given."""
        channels = self.shape(x)[-1]
        spread = 10 ** self.rng.uniform(-3, 1, channels) if variance is None else np.full(channels, variance)
        op = BatchNorm(
            gamma=self.normal(channels),
            beta=self.normal(channels),
            mean=self.normal(channels),
            variance=spread.astype(np.float32),
            epsilon=epsilon,
        )
        return self.add(op, x, name=name)

    def affine(self, x: str, *, offset: bool = True, name: str = "") -> str:
        """scale * x [+ offset] per channel."""
        channels = self.shape(x)[-1]
        shift = self.normal(channels) if offset else np.zeros(channels, np.float32)
        return self.add(Affine(scale=self.normal(channels), offset=shift), x, name=name)

    def function(self, x: str, function: Function = Function.RELU, *, name: str = "") -> str:
        """An element-wise function."""
        return self.add(Elementwise(function=function), x, name=name)

    def graph(self, output: str, *, name: str = "graph") -> Graph:
        """The graph whose result is ``output``."""
        return Graph(name=name, nodes=tuple(self._nodes), output=output)

    def classified(self, x: str) -> Graph:
        """The graph with a head behind ``x`` that weighs every position and channel differently.

        A global pool would hide a shifted map or a swapped axis. A convolution as large as the map does not,
        and needs no flattening of a map, which formats in NCHW would have to transpose.
        """
        if len(self.shape(x)) == 3:
            height, width = self.shape(x)[:2]
            x = self.conv(x, CLASSES, (height, width), padding=Padding(), name="head")
            return self.graph(self.add(Reshape(shape=(CLASSES,)), x, name="flat"))
        return self.graph(self.dense(x, name="head"))
