"""The layers of every registry model, with the conventions of the definition it follows."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

from resnet_edge.models.spec import Family

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """Where the definitions of the same network differ.

    Attributes:
        epsilon: Of every batch norm.
        momentum: Of every batch norm, in Keras' sense (PyTorch's is 1 minus this).
        conv_bias: Whether a convolution that a batch norm follows has a bias all the same.
        symmetric_padding: Pad (k - 1) / 2 on every side, as PyTorch does, instead of TensorFlow's SAME. The
            two differ for even maps and stride 2, where SAME leaves out the first row and column.
    """

    epsilon: float
    momentum: float
    conv_bias: bool
    symmetric_padding: bool


_TORCH = Conventions(epsilon=1e-5, momentum=0.9, conv_bias=False, symmetric_padding=True)
_KERAS = Conventions(epsilon=1.001e-5, momentum=0.99, conv_bias=True, symmetric_padding=True)

CONVENTIONS: Mapping[Family, Conventions] = {
    Family.MLPERF_TINY: Conventions(epsilon=1e-3, momentum=0.99, conv_bias=True, symmetric_padding=False),
    Family.CIFAR: _TORCH,
    Family.CIFAR_V2: _TORCH,
    Family.TORCHVISION: _TORCH,
    Family.TIMM: _TORCH,
    Family.TIMM_V2: _TORCH,
    Family.KERAS: _KERAS,
    Family.KERAS_V2: _KERAS,
}


@dataclass(frozen=True, kw_only=True)
class LayerMaker:
    """Makes named layers and applies them to symbolic NHWC tensors.

    Attributes:
        conventions: Of the model's family.
        width: Factor on every channel count.
        seed: Of the random kernels; None makes them zero.
        branch_gain: Variance of the last convolution of a residual branch, relative to He's. One over the
            number of units keeps the sum of all branches near the variance of one, however deep the model.
    """

    conventions: Conventions
    width: float
    seed: int | None
    branch_gain: float

    def channels(self, filters: int, groups: int = 1) -> int:
        """``filters`` times the width, at least one a group and divisible by the groups."""
        return max(round(filters * self.width / groups), 1) * groups

    def conv(
        self,
        x: keras.KerasTensor,
        name: str,
        filters: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool | None = None,
        ends_branch: bool = False,
    ) -> keras.KerasTensor:
        """A convolution to ``filters`` channels (already scaled by the width), padded to keep the map.

        ``bias`` None leaves it to the conventions.
        """
        padding = "same"
        if stride > 1 and kernel > 1 and self.conventions.symmetric_padding:
            x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}.pad")(x)
            padding = "valid"
        return keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            groups=groups,
            use_bias=self.conventions.conv_bias if bias is None else bias,
            kernel_initializer=self._initializer(name, 2.0 * (self.branch_gain if ends_branch else 1.0)),
            name=name,
        )(x)

    def norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """A batch norm."""
        return keras.layers.BatchNormalization(
            epsilon=self.conventions.epsilon, momentum=self.conventions.momentum, name=name
        )(x)

    def relu(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """A ReLU."""
        return keras.layers.ReLU(name=name)(x)

    def add(self, x: keras.KerasTensor, y: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """The end of a residual unit: shortcut plus branch."""
        return keras.layers.Add(name=name)([x, y])

    def classifier(
        self, x: keras.KerasTensor, pool: str, name: str, classes: int, activation: str | None
    ) -> keras.KerasTensor:
        """The mean over the map, then a dense layer."""
        x = keras.layers.GlobalAveragePooling2D(name=pool)(x)
        return keras.layers.Dense(
            classes, activation=activation, kernel_initializer=self._initializer(name, 1.0), name=name
        )(x)

    def _initializer(self, name: str, gain: float) -> keras.initializers.Initializer:
        """He et al. 2015b (truncated normal, fan-in), seeded by the layer's name: order does not matter."""
        if self.seed is None:
            return keras.initializers.Zeros()
        seed = zlib.crc32(f"{self.seed}/{name}".encode())
        return keras.initializers.VarianceScaling(scale=gain, mode="fan_in", seed=seed)
