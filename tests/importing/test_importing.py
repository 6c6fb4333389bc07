"""The importer against Keras itself, on models that other exporters get wrong."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.execution import execute
from resnet_edge.graph.importing import import_keras
from resnet_edge.graph.operators import Conv2D
from resnet_edge.verification.proof import FLOAT_TOLERANCE, HALF_TOLERANCE, computes_in_half, run_keras
from tests.traps import TRAPS, classifier, image


def images_for(graph, count=3):
    return np.random.default_rng(1).normal(0, 1, (count, *graph.input_shape)).astype(np.float32)


@pytest.mark.parametrize("name", TRAPS)
def test_graph_computes_what_keras_computes(name):
    model = TRAPS[name]()
    graph = import_keras(model)
    inputs = images_for(graph)
    expected = run_keras(model, inputs)
    tolerance = HALF_TOLERANCE if computes_in_half(model) else FLOAT_TOLERANCE
    # The project's own limit at export (its reasons stand beside the constants).
    limit = tolerance * max(1.0, np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3, "an output of zeros would prove nothing"
    assert np.abs(execute(graph, inputs) - expected).max() <= limit


@pytest.mark.parametrize("name", TRAPS)
def test_names_are_legal_everywhere_and_stable(name):
    model = TRAPS[name]()
    first, second = import_keras(model), import_keras(model)
    names = [node.name for node in first.nodes]
    assert names == [node.name for node in second.nodes]
    assert all(name.isascii() and " " not in name for name in names)
    assert names[0] == "image"
    assert not {"logits", "probabilities"} & set(names)


def test_open_input_size_needs_a_shape():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, classifier(layers.Conv2D(4, 3)(x)))
    with pytest.raises(ModelRejectedError, match="--input-shape"):
        import_keras(model)
    assert import_keras(model, input_shape=(9, 7, 3)).input_shape == (9, 7, 3)


def test_input_shape_may_not_contradict_the_model():
    x = image(8, 8)
    with pytest.raises(ModelRejectedError, match="contradicts"):
        import_keras(keras.Model(x, classifier(x)), input_shape=(9, 8, 3))


def test_two_inputs_and_two_outputs_are_refused():
    a, b = image(), image()
    both = layers.Add()([a, b])
    with pytest.raises(ModelRejectedError, match="2 inputs"):
        import_keras(keras.Model([a, b], classifier(both)))
    with pytest.raises(ModelRejectedError, match="2 outputs"):
        import_keras(keras.Model(a, [classifier(a), classifier(a)]))


def test_a_map_is_no_vector_of_classes():
    x = image()
    with pytest.raises(ModelRejectedError, match="not a vector of classes"):
        import_keras(keras.Model(x, layers.Conv2D(4, 3)(x)))


def test_unsupported_layer_is_named_with_its_path():
    inner = keras.Sequential([layers.LayerNormalization(name="the_norm")], name="inner")
    x = image()
    with pytest.raises(ModelRejectedError) as caught:
        import_keras(keras.Model(x, classifier(inner(layers.Conv2D(4, 3)(x)))))
    assert "LayerNormalization" in caught.value.what
    assert caught.value.where.startswith("inner/the_norm")
    assert "BatchNormalization" in caught.value.allowed


def test_raw_tensorflow_in_a_custom_call_says_what_to_do():
    import tensorflow as tf

    class Raw(layers.Layer):
        def call(self, inputs):
            return tf.nn.relu(inputs)

        def compute_output_shape(self, shape):
            return shape

    x = image()
    with pytest.raises(ModelRejectedError, match=r"keras\.ops"):
        import_keras(keras.Model(x, classifier(Raw(name="raw")(x))))


def test_channels_first_is_refused():
    x = keras.Input((3, 16, 16))
    y = layers.GlobalAveragePooling2D(data_format="channels_first")(
        layers.Conv2D(4, 3, data_format="channels_first")(x)
    )
    with pytest.raises(ModelRejectedError, match="channels_first"):
        import_keras(keras.Model(x, layers.Dense(3)(y)))


def test_too_small_an_input_names_the_layer():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, classifier(layers.Conv2D(4, 5, name="wide")(layers.Conv2D(4, 5)(x))))
    with pytest.raises(ModelRejectedError, match="wide"):
        import_keras(model, input_shape=(8, 8, 3))


def test_rgb_to_bgr_becomes_one_convolution():
    x = image(8, 8)
    graph = import_keras(keras.Model(x, classifier(x[..., ::-1])))
    (permutation,) = [node.op for node in graph.nodes if isinstance(node.op, Conv2D)]
    assert permutation.weight[0, 0].tolist() == np.eye(3)[::-1].tolist()


TRAINABLE = [layers.Dropout(0.5), layers.BatchNormalization()]


@pytest.mark.parametrize("layer", TRAINABLE, ids=["dropout", "norm"])
def test_training_mode_ends_with_the_training(layer):
    """A functional model recorded with training=True still infers with training=False, as in Keras."""
    x = image(8, 8)
    model = keras.Model(x, classifier(layer(x, training=True)))
    graph = import_keras(model)
    inputs = images_for(graph)
    assert np.abs(execute(graph, inputs) - run_keras(model, inputs)).max() <= FLOAT_TOLERANCE


def test_dropout_and_noise_leave_no_trace():
    x = image(8, 8)
    y = layers.GaussianNoise(0.1)(layers.Dropout(0.9)(x))
    assert len(import_keras(keras.Model(x, classifier(y))).nodes) == 3  # image, pool, dense


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: ops.exp(x), id="a function outside the set"),
        pytest.param(lambda x: 1.0 / x, id="a constant divided by a tensor"),
        pytest.param(lambda x: ops.clip(x, -1.0, 1.0), id="a clip that is not ReLU6"),
        pytest.param(lambda x: ops.mean(x, axis=1, keepdims=True), id="a mean over one axis"),
        pytest.param(lambda x: ops.cast(x, "int32"), id="a cast to integers"),
        pytest.param(lambda x: x * np.arange(16.0).reshape(1, 16, 1, 1), id="a constant along the height"),
    ],
)
def test_arithmetic_outside_the_set_is_refused(function):
    x = image()
    y = function(x)
    with pytest.raises(ModelRejectedError):
        import_keras(keras.Model(x, layers.Dense(3)(layers.Flatten()(ops.cast(y, "float32")))))
