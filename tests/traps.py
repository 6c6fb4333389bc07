"""User models as they come in: each has something that an exporter is known to get wrong.

``TRAPS`` maps a name to a function that builds the model; weights are seeded and every batch norm has random
statistics, so that a wrong fold shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import layers, ops

if TYPE_CHECKING:
    from collections.abc import Callable

TRAPS: dict[str, Callable[[], keras.Model]] = {}


def trap(function: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    """Register a model under its function's name."""

    def build() -> keras.Model:
        keras.utils.set_random_seed(7)
        model = function()
        randomize(model)
        return model

    TRAPS[function.__name__] = build
    return build


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Give every batch norm statistics as after training: gamma of both signs, variance from 1e-3 to 10.

    gamma grows with the deviation, as it does in training: deep networks would overflow float32 otherwise.
    """
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            count = layer.moving_mean.shape[0]
            deviation = 10 ** random.uniform(-1.5, 0.5, count)
            layer.moving_variance.assign(deviation**2)
            layer.moving_mean.assign(random.normal(0, 0.5, count) * deviation)
            if layer.scale:
                layer.gamma.assign(
                    random.uniform(0.5, 1.2, count) * random.choice([-1, 1], count) * deviation
                )
            if layer.center:
                layer.beta.assign(random.normal(0, 0.5, count))
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(random.normal(0, 0.5, layer.bias.shape))


def image(height: int = 16, width: int = 16, channels: int = 3, **options: object) -> keras.KerasTensor:
    return keras.Input((height, width, channels), **options)


def classifier(features: keras.KerasTensor, classes: int = 5, **options: object) -> keras.KerasTensor:
    return layers.Dense(classes, **options)(layers.GlobalAveragePooling2D()(features))


@keras.saving.register_keras_serializable("traps")
class ResidualUnit(layers.Layer):
    """As in the textbook: layers in lists, a call of its own, and ``Z + skip`` in it."""

    def __init__(self, filters: int, strides: int = 1, activation: str = "relu", **options: object) -> None:
        super().__init__(**options)
        self.filters, self.strides = filters, strides
        self.activation = keras.activations.get(activation)
        self.main_layers = [
            layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False),
            layers.BatchNormalization(),
            self.activation,
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
        ]
        self.skip_layers = []
        if strides > 1:
            self.skip_layers = [
                layers.Conv2D(filters, 1, strides=strides, use_bias=False),
                layers.BatchNormalization(),
            ]

    def call(self, inputs):
        Z = inputs  # noqa: N806 - as the textbook writes it
        for layer in self.main_layers:
            Z = layer(Z)  # noqa: N806
        skip = inputs
        for layer in self.skip_layers:
            skip = layer(skip)
        return self.activation(Z + skip)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}


@keras.saving.register_keras_serializable("traps")
class SubclassedNet(keras.Model):
    """A subclassed model around custom layers, with a training argument and a layer that it passes it to."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.stem = layers.Conv2D(8, 3, padding="same", name="stem")
        self.norm = layers.BatchNormalization(name="norm")
        self.unit = ResidualUnit(8, name="unit")
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(5, name="head")

    def call(self, inputs, training=False):
        features = self.unit(ops.relu(self.norm(self.stem(inputs), training=training)))
        return self.head(self.drop(ops.mean(features, axis=(1, 2)), training=training))


@keras.saving.register_keras_serializable("traps")
class StandardizedConv(layers.Conv2D):
    """A subclass of a known layer that computes something else: its own call must be looked into."""

    def convolution_op(self, inputs, kernel):
        kernel = kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, kernel)


@trap
def custom_residual_unit_in_a_sequential():
    return keras.Sequential(
        [
            image(),
            layers.Conv2D(8, 3, padding="same"),
            ResidualUnit(8),
            ResidualUnit(12, strides=2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )


@trap
def subclassed_model():
    model = SubclassedNet()
    model(np.zeros((1, 16, 16, 3), np.float32))
    return model


@trap
def subclass_of_a_known_layer_with_its_own_arithmetic():
    x = image()
    return keras.Model(x, classifier(StandardizedConv(6, 3)(x)))


def _two_convolutions(dtype: object) -> keras.Model:
    x = image(dtype="float32")
    y = layers.Conv2D(8, 3, padding="same", dtype=dtype)(x)
    y = layers.ReLU(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(y))
    y = layers.Add(dtype=dtype)([y, layers.Conv2D(8, 3, padding="same", dtype=dtype)(y)])
    return keras.Model(x, layers.Activation("softmax", dtype="float32")(classifier(y, dtype=dtype)))


@trap
def float64_model():
    return _two_convolutions("float64")


@trap
def mixed_float16_model():
    return _two_convolutions(keras.DTypePolicy("mixed_float16"))


@trap
def bias_before_batch_norm():
    x = image()
    return keras.Model(x, classifier(layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=True)(x))))


@trap
def batch_norm_after_relu():
    x = image()
    y = layers.BatchNormalization()(layers.Conv2D(6, 3, activation="relu")(x))
    return keras.Model(x, classifier(layers.Conv2D(6, 3, padding="same")(y)))


@trap
def batch_norm_after_dense_at_the_end():
    x = image()
    return keras.Model(x, layers.BatchNormalization()(classifier(layers.Conv2D(6, 3)(x))))


@trap
def batch_norm_after_the_last_relu():
    x = image()
    return keras.Model(x, layers.BatchNormalization()(classifier(layers.Conv2D(6, 3)(x), activation="relu")))


@trap
def flatten_dense_relu_batch_norm_tail():
    return keras.Sequential(
        [
            image(9, 9),
            layers.Conv2D(4, 3, strides=2),
            layers.Flatten(),
            layers.Dense(7),
            layers.ReLU(),
            layers.BatchNormalization(),
            layers.Dense(5),
        ]
    )


@trap
def batch_norm_between_flatten_and_dense():
    x = image(6, 6)
    y = layers.BatchNormalization()(layers.Flatten()(layers.Conv2D(4, 3)(x)))
    return keras.Model(x, layers.Dense(5)(y))


@trap
def strided_slice_and_channel_pad_shortcut():
    x = image(channels=4)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    shortcut = ops.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [2, 2]])
    return keras.Model(x, classifier(layers.ReLU()(y + shortcut)))


@trap
def zero_padding_before_a_valid_convolution():
    x = image(17, 19)
    y = layers.Conv2D(6, 7, strides=2)(layers.ZeroPadding2D(((3, 2), (1, 4)))(x))
    return keras.Model(x, classifier(layers.ReLU()(layers.BatchNormalization()(y))))


@trap
def max_pool_same_and_explicit():
    x = image(15, 17)
    y = layers.MaxPooling2D(3, 2, padding="same")(layers.Conv2D(6, 3)(x) - 3.0)  # negative: zeros would win
    y = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(y + 4.0)))
    return keras.Model(x, classifier(y))


@trap
def max_pool_of_negative_values_after_zero_padding():
    x = image(15, 17)
    y = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.Conv2D(6, 3)(x) - 9.0))
    return keras.Model(x, classifier(y))


@trap
def average_pool_leaves_2x2_then_dense():
    x = image(17, 17)
    y = layers.AveragePooling2D(4)(layers.Conv2D(6, 3, strides=2, activation="relu")(x))
    return keras.Model(x, layers.Dense(5)(layers.Flatten()(y)))


@trap
def average_pool_same():
    x = image(7, 9)
    return keras.Model(x, classifier(layers.AveragePooling2D(3, 2, padding="same")(layers.Conv2D(6, 3)(x))))


@trap
def convolution_with_two_consumers():
    x = image()
    y = layers.Conv2D(6, 3, padding="same")(x)
    z = layers.Conv2D(6, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(y)))
    return keras.Model(x, classifier(layers.Add()([y, z])))


@trap
def grouped_and_dilated():
    x = image(channels=4)
    y = layers.Conv2D(8, 3, groups=2, padding="same")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(8, 3, dilation_rate=(2, 3), padding="same")(y)
    return keras.Model(x, classifier(layers.BatchNormalization()(y)))


@trap
def depthwise_and_separable():
    x = image(13, 11, 4)
    y = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same")(x)
    y = layers.SeparableConv2D(6, 3, padding="same", activation="relu6")(layers.BatchNormalization()(y))
    return keras.Model(x, classifier(layers.BatchNormalization()(y)))


@trap
def preprocessing_layers_inside():
    x = image(12, 12)
    y = layers.RandomFlip()(layers.Rescaling(1 / 127.5, offset=-1.0)(x))
    y = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.5, 2.5])(y)
    y = layers.Conv2D(6, 3, strides=2, padding="same")(layers.GaussianNoise(0.1)(y))
    return keras.Model(x, classifier(y))


@trap
def keras_applications_preprocessing_inside():
    x = image(12, 12)
    y = layers.Conv2D(6, 3, padding="same")(keras.applications.resnet50.preprocess_input(x))
    return keras.Model(x, classifier(y))


@trap
def odd_size_33x57():
    x = image(33, 57)
    y = layers.Conv2D(6, 3, strides=2, padding="same")(x)
    y = layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(layers.BatchNormalization()(y)))
    return keras.Model(x, classifier(layers.Conv2D(6, 5, strides=3, padding="same")(y)))


@trap
def one_input_channel():
    x = image(channels=1)
    return keras.Model(x, classifier(layers.BatchNormalization()(layers.Conv2D(6, 3)(x))))


@trap
def four_input_channels():
    x = image(channels=4)
    return keras.Model(x, classifier(layers.BatchNormalization()(layers.Conv2D(6, 3)(x))))


@trap
def softmax_as_a_layer():
    x = image()
    return keras.Model(x, layers.Softmax()(classifier(layers.Conv2D(6, 3)(x))))


@trap
def softmax_as_an_activation():
    x = image()
    return keras.Model(x, classifier(layers.Conv2D(6, 3)(x), activation="softmax"))


@trap
def names_with_spaces_and_letters_of_the_world():
    x = image(name="Eingabe für Bilder")
    y = layers.Conv2D(6, 3, padding="same", name="свёртка №1")(x)
    y = layers.ReLU(name="свёртка №2")(layers.BatchNormalization(name="正規化")(y))
    y = layers.Conv2D(6, 3, name="image")(layers.Conv2D(6, 3, name="logits")(y))
    return keras.Model(x, classifier(y, name="probabilities"), name="modèle à moi")


@trap
def nested_models():
    inner_x = keras.Input((16, 16, 6))
    inner_y = layers.BatchNormalization(name="norm")(
        layers.Conv2D(6, 3, padding="same", name="conv")(inner_x)
    )
    inner = keras.Model(inner_x, layers.Add()([inner_x, inner_y]), name="block")
    x = image()
    y = inner(inner(layers.Conv2D(6, 3, padding="same")(x)))  # one model twice: its weights are shared
    tail = keras.Sequential([layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(5)], name="tail")
    return keras.Model(x, tail(y))


@trap
def squeeze_and_excitation():
    x = image()
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Dense(8, activation="sigmoid")(layers.Conv2D(2, 1, activation="relu")(gate))
    return keras.Model(x, classifier(layers.ReLU()(layers.Multiply()([y, gate]))))


@trap
def activations_of_the_second_tier():
    x = image()
    y = layers.Conv2D(8, 3, activation="swish")(x)
    y = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform")(layers.Conv2D(8, 1)(y))
    y = layers.Activation("hard_sigmoid")(
        layers.LeakyReLU(0.3)(layers.Conv2D(8, 1, activation="hard_swish")(y))
    )
    y = layers.Subtract()([layers.Activation("tanh")(y), layers.Conv2D(8, 1)(y)])
    return keras.Model(x, classifier(y))


@trap
def shapes_of_the_second_tier():
    x = image(8, 6)
    y = layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(4, 3)(x))
    y = layers.Cropping2D(((1, 2), (0, 3)))(layers.UpSampling2D((1, 2))(y))
    y = layers.Reshape((-1, 4))(layers.Permute((2, 1, 3))(y))
    return keras.Model(x, layers.Dense(5)(layers.Flatten()(y)))


@trap
def pre_activation_with_concatenation():
    x = image()
    y = layers.Conv2D(6, 3, padding="same")(x)
    for _ in range(2):
        z = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(y)))
        y = layers.Concatenate()([y, z])
    return keras.Model(x, classifier(layers.ReLU()(layers.BatchNormalization()(y))))
