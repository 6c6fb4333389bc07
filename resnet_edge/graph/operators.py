"""The operators of the float graph, one frozen dataclass each.

Layout: images are NHWC float32; shapes in this package leave the batch dimension out, so a feature map is
``(height, width, channels)`` and a feature vector is ``(features,)``. Weights are float32 in the layout that
each class names. Every padding is explicit and resolved to numbers of rows and columns: whether a format
calls it SAME, VALID or a list of pads is the converter's business.
"""

from __future__ import annotations

import abc
import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.graph.geometry import (
    Padding,
    Shape,
    ShapeError,
    broadcast,
    feature_map,
    only,
    per_channel,
    window_count,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Weight: TypeAlias = NDArray[np.float32]


class Activation(enum.StrEnum):
    """The activations that an operator can carry fused."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"


class Function(enum.StrEnum):
    """Element-wise functions (softmax: along the last axis) that stand as nodes of their own."""

    RELU = "relu"
    RELU6 = "relu6"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    TANH = "tanh"
    SWISH = "swish"
    HARD_SIGMOID = "hard_sigmoid"
    """relu6(x + 3) / 6, as Keras and PyTorch define it."""
    HARD_SWISH = "hard_swish"


class Operator(abc.ABC):
    """What every operator can say about itself.

    A subclass is a frozen dataclass whose array fields are its constants, and says what ``infer`` means.
    """

    tier: int = 1
    """1: every precision; 2: float32 and float16 only."""

    @abc.abstractmethod
    def infer(self, inputs: Sequence[Shape]) -> Shape:
        """The output's shape from the inputs' shapes.

        Raises:
            ShapeError: The operator cannot take these shapes.
        """

    def weights(self) -> Mapping[str, Weight]:
        """The constant tensors by role (``weight``, ``bias``, ...)."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def macs(self, output: Shape) -> int:  # noqa: ARG002 - for the operators that do multiply
        """Multiply-accumulates for one image: convolutions and dense layers only, as torchvision counts."""
        return 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Input(Operator):
    """The image: the graph's one input, ``(height, width, channels)``."""

    shape: Shape

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        if inputs:
            raise ShapeError("takes no input")
        return self.shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2D(Operator):
    """Cross-correlation; ``weight`` is (kh, kw, in / groups, out), ``bias`` (out,)."""

    weight: Weight
    bias: Weight
    strides: tuple[int, int] = (1, 1)
    padding: Padding = Padding()
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Activation = Activation.NONE

    @property
    def kernel(self) -> tuple[int, int]:
        """Kernel height and width."""
        return self.weight.shape[0], self.weight.shape[1]

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        height, width, channels = feature_map(inputs)
        if channels != self.weight.shape[2] * self.groups or self.weight.shape[3] % self.groups:
            raise ShapeError(
                f"weight {self.weight.shape} in {self.groups} group(s) does not fit {channels} input channels"
            )
        return *window_count(
            (height, width), self.kernel, self.strides, self.dilation, self.padding
        ), self.weight.shape[3]

    def macs(self, output: Shape) -> int:
        return output[0] * output[1] * self.weight.size


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthwiseConv2D(Operator):
    """One filter bank a channel; ``weight`` is (kh, kw, in, multiplier), ``bias`` (in * multiplier,).

    Output channel ``c * multiplier + m`` is input channel ``c`` under filter ``m``. A 1x1 kernel with
    multiplier 1 is the graph's per-channel affine: the form of a batch norm that could not be folded.
    """

    weight: Weight
    bias: Weight
    strides: tuple[int, int] = (1, 1)
    padding: Padding = Padding()
    dilation: tuple[int, int] = (1, 1)
    activation: Activation = Activation.NONE

    @property
    def kernel(self) -> tuple[int, int]:
        """Kernel height and width."""
        return self.weight.shape[0], self.weight.shape[1]

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        height, width, channels = feature_map(inputs)
        if channels != self.weight.shape[2]:
            raise ShapeError(f"weight {self.weight.shape} does not fit {channels} input channels")
        out = channels * self.weight.shape[3]
        return *window_count((height, width), self.kernel, self.strides, self.dilation, self.padding), out

    def macs(self, output: Shape) -> int:
        return output[0] * output[1] * self.weight.size


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense(Operator):
    """Matrix product along the last axis of a feature vector; ``weight`` is (in, out), ``bias`` (out,)."""

    weight: Weight
    bias: Weight
    activation: Activation = Activation.NONE

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        shape = only(inputs)
        if len(shape) != 1 or shape[0] != self.weight.shape[0]:
            raise ShapeError(f"takes a vector of {self.weight.shape[0]} features, got {shape}")
        return (self.weight.shape[1],)

    def macs(self, output: Shape) -> int:  # noqa: ARG002 - the base's signature
        return self.weight.size


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm(Operator):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta along the last axis; all (channels,).

    Ioffe and Szegedy, "Batch Normalization", 2015, in inference form.
    """

    gamma: Weight
    beta: Weight
    mean: Weight
    variance: Weight
    epsilon: float

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return per_channel(inputs, self.gamma.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Operator):
    """scale * x + offset along the last axis, both (channels,): Rescaling, Normalization, a constant factor.

    Only between import and ``lower_affine``, which folds it away or turns it into a DepthwiseConv2D;
    converters never see one.
    """

    scale: Weight
    offset: Weight

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return per_channel(inputs, self.scale.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Elementwise(Operator):
    """One function of every element (softmax: of every vector along the last axis)."""

    function: Function

    @property
    def tier(self) -> int:  # type: ignore[override]
        """1 for the functions that ResNets and squeeze-and-excitation need, 2 for the others."""
        tier1 = (Function.RELU, Function.RELU6, Function.SIGMOID, Function.SOFTMAX)
        return 1 if self.function in tier1 else 2

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return only(inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class LeakyRelu(Operator):
    """x where x >= 0, else alpha * x."""

    tier = 2
    alpha: float

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return only(inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class PRelu(Operator):
    """x where x >= 0, else alpha * x with a learned alpha per channel, (channels,)."""

    tier = 2
    alpha: Weight

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return per_channel(inputs, self.alpha.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Operator):
    """Sum of two tensors (broadcast)."""

    activation: Activation = Activation.NONE

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return broadcast(inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply(Operator):
    """Product of two tensors (broadcast): the gate of a squeeze-and-excitation block."""

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return broadcast(inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subtract(Operator):
    """First input minus second (broadcast)."""

    tier = 2

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return broadcast(inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Operator):
    """Inputs side by side along the last axis."""

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        if not inputs or any(shape[:-1] != inputs[0][:-1] for shape in inputs):
            raise ShapeError(f"takes inputs that differ in the last dimension only, got {list(inputs)}")
        return *inputs[0][:-1], sum(shape[-1] for shape in inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pool2D(Operator):
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: Padding = Padding()

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        height, width, channels = feature_map(inputs)
        return *window_count((height, width), self.size, self.strides, (1, 1), self.padding), channels


class MaxPool2D(_Pool2D):
    """Largest value in a window; padded cells never win."""


class AveragePool2D(_Pool2D):
    """Mean over a window; padded cells are not counted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _GlobalPool(Operator):
    keepdims: bool = False

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        channels = feature_map(inputs)[2]
        return (1, 1, channels) if self.keepdims else (channels,)


class GlobalAveragePool(_GlobalPool):
    """Mean over the whole map: (channels,), or (1, 1, channels) with ``keepdims``."""


class GlobalMaxPool(_GlobalPool):
    """Largest value of the whole map: (channels,), or (1, 1, channels) with ``keepdims``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Operator):
    """The same elements in row-major (NHWC) order under another shape; Flatten is one to ``(features,)``."""

    shape: Shape

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        if math.prod(only(inputs)) != math.prod(self.shape):
            raise ShapeError(f"cannot reshape {inputs[0]} to {self.shape}")
        return self.shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Pad(Operator):
    """Zeros around a map, and before and after its channels."""

    padding: Padding = Padding()
    channels: tuple[int, int] = (0, 0)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        height, width, channels = feature_map(inputs)
        return (
            height + self.padding.top + self.padding.bottom,
            width + self.padding.left + self.padding.right,
            channels + sum(self.channels),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice(Operator):
    """``x[begin:end:strides]`` along height, width and channels; strides positive, ends resolved."""

    begin: tuple[int, int, int]
    end: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        shape = feature_map(inputs)
        for extent, begin, end in zip(shape, self.begin, self.end, strict=True):
            if not 0 <= begin < end <= extent:
                raise ShapeError(f"cannot slice {self.begin}:{self.end} out of {shape}")
        height, width, channels = (
            len(range(b, e, s)) for b, e, s in zip(self.begin, self.end, self.strides, strict=True)
        )
        return height, width, channels


@dataclass(frozen=True, kw_only=True, eq=False)
class Upsample2D(Operator):
    """Every pixel repeated ``size`` times (nearest), or interpolated with half-pixel centres (bilinear)."""

    tier = 2
    size: tuple[int, int]
    bilinear: bool = False

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        height, width, channels = feature_map(inputs)
        return height * self.size[0], width * self.size[1], channels


@dataclass(frozen=True, kw_only=True, eq=False)
class Permute(Operator):
    """Dimensions in another order; ``order`` counts from 0 without the batch."""

    tier = 2
    order: tuple[int, ...]

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        shape = only(inputs)
        if sorted(self.order) != list(range(len(shape))):
            raise ShapeError(f"order {self.order} does not fit {shape}")
        return tuple(shape[axis] for axis in self.order)
