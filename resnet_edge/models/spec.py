"""What a row of the registry says: everything that tells one ResNet from another, as data."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Family(enum.StrEnum):
    """Whose definition a model follows: its layer names, paddings, biases and epsilons."""

    MLPERF_TINY = "MLPerf Tiny"
    CIFAR = "CIFAR"
    """He et al. 2015, section 4.2, in akamaster's form: 3x3 stem, three stages, post-activation."""
    CIFAR_V2 = "CIFAR v2"
    """He et al. 2016: the same, pre-activation."""
    TORCHVISION = "torchvision"
    TIMM = "timm"
    TIMM_V2 = "timm v2"
    KERAS = "keras.applications"
    KERAS_V2 = "keras.applications v2"


class Block(enum.StrEnum):
    """The residual branch of a unit."""

    BASIC = "basic"
    """Two 3x3 convolutions."""
    BOTTLENECK = "bottleneck"
    """1x1, 3x3, 1x1 to four times the width."""


class Shortcut(enum.StrEnum):
    """What the shortcut does where the map or its channels change (He et al. 2015, section 3.3)."""

    PAD = "A"
    """Every second pixel, zeros for the new channels: no parameters."""
    PROJECTION = "B"
    """A 1x1 convolution."""


class Head(enum.StrEnum):
    """What the model gives; published weights were trained with one or the other."""

    LOGITS = "logits"
    SOFTMAX = "probabilities"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A parameter count that others printed, to hold ours against.

    Attributes:
        parameters: The figure.
        source: Who printed it.
        rounded_to: 1 for an exact count, else the unit of its last digit.
        with_statistics: Whether the moving means and variances of the batch norms are counted too.
    """

    parameters: int
    source: str
    rounded_to: int = 1
    with_statistics: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One ResNet.

    Attributes:
        name: What the user writes.
        family: Whose definition it follows.
        block: The kind of residual unit.
        units: Residual units in each stage.
        parameters: Trainable parameters of the default build.
        macs: Multiply-accumulates of the default build for one image (convolutions and dense layers).
        published: The count that proves the build.
        input_shape: Default (height, width, channels).
        classes: Default number of classes.
        head: Logits or probabilities.
        preprocessing: Preprocessing contract of the published weights (see ``resnet_edge.data``).
        weights: Names that ``--weights`` takes besides a file.
        weights_input_shape: The input of those weights, where it is not the row's default.
        shortcut: The default shortcut; only the CIFAR families offer a choice.
        stride_in_3x3: Whether a bottleneck strides in its 3x3 convolution (v1.5) or its first 1x1 (v1).
        groups: Groups of a bottleneck's 3x3 convolution.
        branch_width: Width of a bottleneck's inner convolutions at 64 filters (torchvision's
            ``width_per_group * groups``).
        deep_stem: Three 3x3 convolutions instead of one 7x7, and average pooling in the projections
            (ResNet-D, He et al. 2018).
        squeeze_excitation: Whether each branch ends in a channel gate (Hu et al. 2017).
    """

    name: str
    family: Family
    block: Block
    units: tuple[int, ...]
    parameters: int
    macs: int
    published: Published
    input_shape: tuple[int, int, int]
    classes: int
    head: Head
    preprocessing: str
    weights: tuple[str, ...] = ()
    weights_input_shape: tuple[int, int, int] | None = None
    shortcut: Shortcut = Shortcut.PROJECTION
    stride_in_3x3: bool = True
    groups: int = 1
    branch_width: int = 64
    deep_stem: bool = False
    squeeze_excitation: bool = False

    def input_shape_with(self, weights: str | None) -> tuple[int, int, int]:
        """The default input shape of a model that is about to get the weights of this name."""
        return (weights in self.weights and self.weights_input_shape) or self.input_shape

    @property
    def large_images(self) -> bool:
        """Whether the stem strides by four (ImageNet) or not at all (CIFAR, MLPerf Tiny)."""
        return self.family not in (Family.MLPERF_TINY, Family.CIFAR, Family.CIFAR_V2)

    @property
    def stem_filters(self) -> int:
        """Channels after the stem, and the first stage's base width."""
        return 64 if self.large_images else 16

    @property
    def total_stride(self) -> int:
        """How many input pixels one pixel of the last map stands for; the smallest usable side."""
        return (4 if self.large_images else 1) << (len(self.units) - 1)

    @property
    def preactivation(self) -> bool:
        """Whether batch norm and ReLU come before each convolution (v2)."""
        return self.family in (Family.CIFAR_V2, Family.TIMM_V2, Family.KERAS_V2)
