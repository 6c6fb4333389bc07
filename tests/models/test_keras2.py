"""Files written by tf_keras, Keras 2 as it still is, come back as Keras 3 models that compute the same."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from resnet_edge.errors import ModelRejectedError
from resnet_edge.models.loading import load_model_file

TOLERANCE = 1e-6
"""On outputs of order 1: the same float32 kernels on the same weights, at most fused differently."""


def saved(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf_keras' advice to save as .keras
        model.save(path)
    return path


def assert_comes_back(model, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' own about settings of old
        loaded = load_model_file(saved(model, folder / "old.h5")).model
    images = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    expected, found = (np.asarray(m(images, training=False), np.float64) for m in (model, loaded))
    assert np.abs(found - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max())


LAYERS = {
    "depthwise": lambda k: [k.layers.DepthwiseConv2D(3, activation="swish")],
    "separable": lambda k: [k.layers.SeparableConv2D(4, 3)],
    "mixed precision": lambda k: [k.layers.Conv2D(4, 3, dtype="mixed_float16")],
    "augmentation": lambda k: [
        k.layers.RandomFlip(),
        k.layers.RandomZoom(0.1),
        k.layers.RandomCrop(8, 8),
    ],
    "noise": lambda k: [k.layers.SpatialDropout2D(0.1), k.layers.GaussianNoise(0.1)],
    "activations": lambda k: [
        k.layers.LeakyReLU(0.1),
        k.layers.ReLU(6.0),
        k.layers.PReLU(shared_axes=[1, 2]),
    ],
    "preprocessing": lambda k: [
        k.layers.Rescaling(1 / 255),
        k.layers.Normalization(mean=0.5, variance=2.0),
    ],
    "norm": lambda k: [k.layers.Conv2D(4, 3, kernel_regularizer="l2"), k.layers.BatchNormalization()],
    "nested": lambda k: [k.Sequential([k.Input((8, 8, 3)), k.layers.Conv2D(4, 3)])],
}


@pytest.fixture(scope="module")
def keras2():
    import tf_keras

    return tf_keras


@pytest.mark.parametrize("name", LAYERS)
def test_sequential(name, keras2, tmp_path):
    ends = [keras2.layers.Flatten(), keras2.layers.Dense(3)]
    model = keras2.Sequential([keras2.Input((8, 8, 3)), *LAYERS[name](keras2), *ends])
    assert_comes_back(model, tmp_path)


@pytest.mark.parametrize("ending", [True, False])
@pytest.mark.parametrize("kind", ["Functional", "Sequential"])
def test_nested_and_shared(kind, ending, keras2, tmp_path):
    """Keras 2 counts the calls of a nested model from 1: its making was call 0."""
    parts = [keras2.Input((8, 8, 3)), keras2.layers.Conv2D(3, 3, padding="same", name="conv")]
    inner = keras2.Sequential(parts, name="inner")
    if kind == "Functional":
        inner = keras2.Model(parts[0], parts[1](parts[0]), name="inner")
    x = keras2.Input((8, 8, 3))
    y = keras2.layers.Add()([inner(inner(x)), x])
    head = keras2.Sequential([keras2.layers.Flatten(), keras2.layers.Dense(3)], name="head")
    model = keras2.Model(x, keras2.layers.Softmax()(head(y)) if ending else head(y))
    assert_comes_back(model, tmp_path)


def test_another_hard_sigmoid(keras2, tmp_path):
    parts = [keras2.layers.Flatten(), keras2.layers.Dense(3, activation="hard_sigmoid", name="gate")]
    path = saved(keras2.Sequential([keras2.Input((8, 8, 3)), *parts]), tmp_path / "old.h5")
    with pytest.raises(ModelRejectedError, match="hard_sigmoid") as caught:
        load_model_file(path)
    assert "'gate'" in caught.value.where


def test_archive(keras2, tmp_path):
    path = saved(
        keras2.Sequential([keras2.Input((8, 8, 3)), keras2.layers.Flatten()]), tmp_path / "old.keras"
    )
    with pytest.raises(ModelRejectedError, match="written by Keras 2") as caught:
        load_model_file(path)
    assert "model.save('NAME.h5')" in caught.value.next_step


def test_operators_on_tensors(keras2, tmp_path):
    x = keras2.Input((8, 8, 3))
    path = saved(keras2.Model(x, keras2.layers.Flatten()(x[:, ::2] * 2.0)), tmp_path / "old.h5")
    with pytest.raises(ModelRejectedError, match="TensorFlow functions"):
        load_model_file(path)
