"""The layers of every registry model: named, seeded, padded by the conventions of their family."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from resnet_edge.models.conventions import Conventions


@dataclass(frozen=True, kw_only=True)
class LayerMaker:
    """Makes layers and applies them to symbolic NHWC tensors.

    Attributes:
        conventions: Of the model's family.
        width: Factor on every channel count.
        seed: Of the random kernels; None makes them zero.
        branch_gain: Variance of the last convolution of a residual branch, relative to He's. One over the
            number of units keeps the sum of all branches near the variance of one, however deep the model.
        operation_names: Names for the operations that are not layers, in the order of their making.
    """

    conventions: Conventions
    width: float
    seed: int | None
    branch_gain: float
    operation_names: list[str] = field(default_factory=list)

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
        bias: bool,
        stride: int = 1,
        groups: int = 1,
        ends_branch: bool = False,
    ) -> keras.KerasTensor:
        """A convolution to ``filters`` channels (already scaled by the width), padded by the conventions."""
        padding = "same"
        # With stride 1 and an odd kernel SAME is symmetric, so one layer does it.
        if stride > 1 and kernel > 1 and self.conventions.symmetric_padding:
            x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}.pad")(x)
            padding = "valid"
        return keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            groups=groups,
            use_bias=bias,
            kernel_initializer=self._initializer(name, 2.0 * (self.branch_gain if ends_branch else 1.0)),
            name=name,
        )(x)

    def norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """A batch norm."""
        return keras.layers.BatchNormalization(
            epsilon=self.conventions.epsilon, momentum=self.conventions.momentum, name=name
        )(x)

    def norm_relu(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """A batch norm and its ReLU."""
        return keras.layers.ReLU(name=f"{name}.relu")(self.norm(x, name))

    def max_pool(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """3x3, stride 2, one cell of padding on every side."""
        if self.conventions.pool_pads_zeros:
            x = keras.layers.ZeroPadding2D(1, name=f"{name}.pad")(x)
            return keras.layers.MaxPooling2D(3, strides=2, name=name)(x)
        # Keras pads max pooling only by SAME, which is symmetric with stride 1: pool so, then take every
        # second pixel.
        x = keras.layers.MaxPooling2D(3, strides=1, padding="same", name=name)(x)
        return keras.layers.MaxPooling2D(1, strides=2, name=f"{name}.stride")(x)

    def gate(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Squeeze-and-excitation (Hu et al. 2017) by a sixteenth, rounded to eights as timm does."""
        channels = x.shape[-1]
        squeezed = max(8, int(channels / 16 + 4) // 8 * 8)
        y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.pool")(x)
        y = self.conv(y, f"{name}.fc1", squeezed, 1, bias=True)
        y = keras.layers.ReLU(name=f"{name}.relu")(y)
        y = self.conv(y, f"{name}.fc2", channels, 1, bias=True)
        y = keras.layers.Activation("sigmoid", name=f"{name}.sigmoid")(y)
        return keras.layers.Multiply(name=f"{name}.scale")([x, y])

    def pad_shortcut(self, x: keras.KerasTensor, name: str, filters: int, stride: int) -> keras.KerasTensor:
        """Every ``stride``-th pixel, with zeros before and after the channels (He et al. 2015, option A)."""
        if stride > 1:
            x = x[:, ::stride, ::stride, :]
            self.operation_names.append(f"{name}.slice")
        before = (filters - x.shape[-1]) // 2
        after = filters - x.shape[-1] - before
        self.operation_names.append(f"{name}.pad")
        return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)))

    def classifier(self, x: keras.KerasTensor, classes: int, activation: str | None) -> keras.KerasTensor:
        """The mean over the map, then a dense layer."""
        names = self.conventions.names
        x = keras.layers.GlobalAveragePooling2D(name=names.pool)(x)
        return keras.layers.Dense(
            classes,
            activation=activation,
            kernel_initializer=self._initializer(names.classifier, 1.0),
            name=names.classifier,
        )(x)

    def _initializer(self, name: str, gain: float) -> keras.initializers.Initializer:
        """A truncated normal scaled by fan-in (He et al. 2015b), seeded by the layer's name."""
        if self.seed is None:
            return keras.initializers.Zeros()
        seed = zlib.crc32(f"{self.seed}/{name}".encode())
        return keras.initializers.VarianceScaling(scale=gain, mode="fan_in", seed=seed)
