"""Where the published definitions of the same network differ, and what they call their layers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from resnet_edge.models.spec import Family

if TYPE_CHECKING:
    from collections.abc import Mapping


class Naming(enum.StrEnum):
    """How a weight file names its tensors."""

    PYTORCH = "pytorch"
    """``layer1.0.conv1.weight``: torchvision, timm, akamaster."""
    KERAS = "keras"
    """``conv1_conv/kernel``: keras.applications, and whatever Keras saved of our own models."""
    KERAS_ORDER = "keras-order"
    """``conv2d_5/kernel``: names that Keras counted up, so that only their order means something."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Layer names, so that published weights fit by name alone.

    In ``unit``, ``{stage}`` and ``{unit}`` are numbers; in what follows it, ``{unit}`` is that result and
    ``{i}`` counts the convolutions of a branch from 1.

    Attributes:
        stem_conv: The first convolution.
        stem_norm: Its batch norm.
        unit: A residual unit.
        first_stage: The number of the first stage.
        first_unit: The number of a stage's first unit.
        conv: A branch's convolutions.
        norms: A branch's batch norms, in order.
        projection: The shortcut's convolution.
        projection_norm: Its batch norm.
        final_norm: The batch norm before the head of a pre-activation model.
        pool: The mean over the map.
        classifier: The dense layer.
    """

    stem_conv: str = "conv1"
    stem_norm: str = "bn1"
    unit: str = "layer{stage}.{unit}"
    first_stage: int = 1
    first_unit: int = 0
    conv: str = "{unit}.conv{i}"
    norms: tuple[str, str, str] = ("{unit}.bn1", "{unit}.bn2", "{unit}.bn3")
    projection: str = "{unit}.downsample.0"
    projection_norm: str = "{unit}.downsample.1"
    final_norm: str = ""
    pool: str = "avgpool"
    classifier: str = "fc"

    def unit_name(self, stage: int, unit: int) -> str:
        """The name of a unit; both count from 0."""
        return self.unit.format(stage=stage + self.first_stage, unit=unit + self.first_unit)


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How one family builds what all families share.

    Attributes:
        names: Of the layers.
        naming: Of the tensors in the published weight files.
        epsilon: Of every batch norm.
        momentum: Of every batch norm, in Keras' sense (PyTorch's is 1 minus this).
        outer_bias: Whether the stem, the projections and the last convolution of a branch have a bias.
        inner_bias: Whether a branch's other convolutions have one.
        symmetric_padding: Pad (k - 1) / 2 on every side, as PyTorch does, instead of TensorFlow's SAME. The
            two differ where a stride of 2 meets an even map: SAME then pads after the map only.
        projection_norm: Whether a projection has a batch norm.
        stride_in_last_unit: Whether a stage shrinks its map in its last unit instead of its first.
        pool_pads_zeros: Whether a padded cell counts as zero in the stem's max pooling, or never wins.
    """

    names: Names
    naming: Naming
    epsilon: float
    momentum: float
    outer_bias: bool = False
    inner_bias: bool = False
    symmetric_padding: bool = True
    projection_norm: bool = True
    stride_in_last_unit: bool = False
    pool_pads_zeros: bool = True


_TORCH = Conventions(names=Names(), naming=Naming.PYTORCH, epsilon=1e-5, momentum=0.9)

_TIMM_V2 = Conventions(
    names=Names(
        stem_conv="stem.conv",
        unit="stages.{stage}.blocks.{unit}",
        first_stage=0,
        norms=("{unit}.norm1", "{unit}.norm2", "{unit}.norm3"),
        projection="{unit}.downsample.conv",
        final_norm="norm",
        pool="head.global_pool",
        classifier="head.fc",
    ),
    naming=Naming.PYTORCH,
    epsilon=1e-5,
    momentum=0.9,
    projection_norm=False,
    pool_pads_zeros=False,
)

_KERAS = Conventions(
    names=Names(
        stem_conv="conv1_conv",
        stem_norm="conv1_bn",
        unit="conv{stage}_block{unit}",
        first_stage=2,
        first_unit=1,
        conv="{unit}_{i}_conv",
        norms=("{unit}_1_bn", "{unit}_2_bn", "{unit}_3_bn"),
        projection="{unit}_0_conv",
        projection_norm="{unit}_0_bn",
        pool="avg_pool",
        classifier="predictions",
    ),
    naming=Naming.KERAS,
    epsilon=1.001e-5,
    momentum=0.99,
    outer_bias=True,
    inner_bias=True,
)

CONVENTIONS: Mapping[Family, Conventions] = MappingProxyType(
    {
        Family.MLPERF_TINY: replace(
            _TORCH,
            naming=Naming.KERAS_ORDER,
            epsilon=1e-3,
            momentum=0.99,
            outer_bias=True,
            inner_bias=True,
            symmetric_padding=False,
            projection_norm=False,
        ),
        Family.CIFAR: replace(
            _TORCH,
            names=replace(
                _TORCH.names,
                projection="{unit}.shortcut.0",
                projection_norm="{unit}.shortcut.1",
                classifier="linear",
            ),
        ),
        Family.CIFAR_V2: _TIMM_V2,
        Family.TORCHVISION: _TORCH,
        Family.TIMM: _TORCH,
        Family.TIMM_V2: _TIMM_V2,
        Family.KERAS: _KERAS,
        Family.KERAS_V2: replace(
            _KERAS,
            names=replace(
                _KERAS.names,
                norms=("{unit}_preact_bn", "{unit}_1_bn", "{unit}_2_bn"),
                final_norm="post_bn",
            ),
            inner_bias=False,
            projection_norm=False,
            stride_in_last_unit=True,
        ),
    }
)
"""Every family's conventions."""
