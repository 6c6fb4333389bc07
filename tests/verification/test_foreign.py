"""Files of other tools against the float model that they were made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnxruntime.quantization import QuantType, quantize_dynamic

from resnet_edge.converters import ConversionSettings, QuantizingConverter, load_converter
from resnet_edge.data.datasets import open_dataset
from resnet_edge.errors import ModelRejectedError, UsageError
from resnet_edge.inspection.precision import guess_precision
from resnet_edge.pipeline import ExportOptions, export
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.verification.against import open_against
from resnet_edge.verification.foreign import (
    are_probabilities,
    check_match,
    make_comparable,
    open_foreign,
)
from resnet_edge.verification.target import open_target
from tests.graphs import OPERATOR_GRAPHS, images
from tests.minmax import minmax
from tests.shared_data import shared_file
from tests.traps import TRAPS

RAW = ExportOptions(preprocess="raw")


@pytest.fixture(scope="module")
def model():
    return open_against(shared_file("mlperf_tiny_resnet8.h5"), RAW)


def litert_alone(path, pixels):
    """Output integers of an int8 file, with the runtime and NumPy only, for pixels 0..255."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = taken["quantization"]
    outputs = []
    for image in pixels:
        integers = np.clip(np.rint(image / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], integers[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(given["index"])[0])
    return np.stack(outputs)


def test_mlperf_tiny_int8_file_against_its_own_float_model(model):
    path, data = shared_file("mlperf_tiny_resnet8_int8.tflite"), shared_file("cifar10_test500.npz")
    file = open_foreign(path)
    assert (file.format, file.precision, file.layout) == ("tflite", "int8", "nhwc")
    assert (file.input.dtype, file.output.dtype, file.output_step) == ("int8", "int8", 1 / 256)
    assert check_match(file, model, model.preprocessing) == ()
    dataset = open_dataset(str(data), model.preprocessing)
    inputs = np.concatenate(list(dataset.batches()))
    with file.open() as engine:
        reference, outputs, note = make_comparable(model.run(inputs), engine.run(inputs))
    assert note == ""
    with np.load(data) as arrays:
        pixels, labels = arrays["images"], arrays["labels"]
    assert np.array_equal(outputs, (litert_alone(path, pixels) + 128.0).astype(np.float32) / 256)
    # The published figures: 89.0 % in float, 88.4 % in int8, of the first 500 test images.
    assert np.count_nonzero(reference.argmax(axis=1) == labels) == 445
    assert np.count_nonzero(outputs.argmax(axis=1) == labels) == 442


def test_a_float_model_that_computes_in_float16_is_known_from_its_file_and_from_a_bundle(tmp_path):
    for name, half in (("mixed_float16_model", True), ("float64_model", False)):
        path, bundle = tmp_path / f"{name}.keras", tmp_path / name
        TRAPS[name]().save(path)
        made = export(path, bundle, ExportOptions(preprocess="raw", formats=("tflite",)))
        assert made.manifest.model.half == half
        artifact = bundle / f"{name}-fp32.tflite"
        assert open_against(path, RAW).half == half
        assert open_target(artifact, str(path), (), RAW).half == half
        assert open_target(artifact, str(bundle), (), ExportOptions()).half == half


def test_mlperf_tiny_float_file_computes_what_keras_does(model):
    file = open_foreign(shared_file("mlperf_tiny_resnet8_float.tflite"))
    assert file.precision == "fp32"
    inputs = np.random.default_rng(0).uniform(0, 255, (20, *file.image_shape)).astype(np.float32)
    with file.open() as engine:
        # Float32 sums in another order; Keras against LiteRT is allowed 1e-4 everywhere.
        np.testing.assert_allclose(engine.run(inputs), model.run(inputs), atol=1e-4)


@pytest.mark.parametrize("name", ["model.bin", "model", "model.onnx"])
def test_the_format_is_told_by_content(tmp_path, name):
    path = tmp_path / name
    shutil.copyfile(shared_file("mlperf_tiny_resnet8_int8.tflite"), path)
    assert open_foreign(path).format == "tflite"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_an_onnx_file_without_a_suffix(tmp_path, layout):
    graph = OPERATOR_GRAPHS["conv_3x3_same"]
    written, path = tmp_path / "model.onnx", tmp_path / "model"
    load_converter("onnx").convert(graph, written, ConversionSettings(onnx_layout=layout))
    written.rename(path)
    file = open_foreign(path)
    assert (file.format, file.layout) == ("onnx", layout)
    assert (file.image_shape, file.classes) == (graph.input_shape, graph.classes)


def test_a_keras_file_is_no_file_to_verify(tmp_path):
    path = tmp_path / "model.tflite"
    TRAPS["bias_before_batch_norm"]().save(tmp_path / "model.keras")
    (tmp_path / "model.keras").rename(path)
    with pytest.raises(ModelRejectedError, match=r"zip archive, as \.keras files are"):
        open_foreign(path)


PRECISIONS = ("fp32", "fp16", "int8", "int8-per-tensor", "int8-weights")


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [("tflite", "int16x8"), *((kind, recipe) for kind in ("tflite", "onnx") for recipe in PRECISIONS)],
)
def test_precision_is_guessed_from_content(tmp_path, kind, recipe):
    graph, converter, path = (
        OPERATOR_GRAPHS["conv_3x3_same"],
        load_converter(kind),
        tmp_path / f"model.{kind}",
    )
    if recipe == "fp32":
        converter.convert(graph, path, ConversionSettings())
    else:
        assert isinstance(converter, QuantizingConverter)
        quantized = quantize_graph(graph, RECIPES[recipe], minmax(graph, images(graph, 16)))
        converter.convert(graph, path, ConversionSettings(), quantized)
    assert guess_precision(path) == recipe.removesuffix("-per-tensor")


def test_integers_made_on_the_fly_are_not_taken_for_int8(tmp_path):
    source, path = tmp_path / "float.onnx", tmp_path / "dynamic.onnx"
    load_converter("onnx").convert(OPERATOR_GRAPHS["conv_3x3_same"], source, ConversionSettings())
    quantize_dynamic(source, path, weight_type=QuantType.QUInt8)
    assert guess_precision(path) == "int8-weights"


def test_another_model_is_one_clear_error(model):
    file = open_foreign(shared_file("mlperf_tiny_resnet8_int8.tflite"))
    other = replace(model, image_shape=(28, 28, 1), classes=100, name="other")
    with pytest.raises(ModelRejectedError, match="not made from this model") as raised:
        check_match(file, other, other.preprocessing)
    assert raised.value.exit_code == 3
    for text in ("(32, 32, 3)", "10"):
        assert text in raised.value.found
    for text in ("(28, 28, 1)", "100"):
        assert text in raised.value.allowed


def test_inputs_that_the_file_cannot_hold_are_noted():
    file = open_foreign(shared_file("mlperf_tiny_resnet8_int8.tflite"))
    wrong = open_against(shared_file("mlperf_tiny_resnet8.h5"), ExportOptions(preprocess="torch"))
    (note,) = check_match(file, wrong, wrong.preprocessing)
    assert "holds 0 to 255" in note
    assert "--preprocess" in note


LOGITS = np.array([[3.0, -1.0, 0.5], [0.1, 0.2, 0.9]], np.float32)
EXPECTED = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def test_logits_are_compared_with_probabilities_after_a_softmax():
    reference, outputs, note = make_comparable(EXPECTED, LOGITS)
    np.testing.assert_allclose(outputs, EXPECTED, rtol=1e-6)  # float32's rounding
    assert reference is EXPECTED
    assert "the model gives probabilities and the file logits" in note
    reference, outputs, note = make_comparable(LOGITS, EXPECTED)
    np.testing.assert_allclose(reference, EXPECTED, rtol=1e-6)
    assert outputs is EXPECTED
    assert "the file gives probabilities and the model logits" in note


def test_like_is_compared_with_like_as_it_is():
    for value in (LOGITS, EXPECTED):
        assert make_comparable(value, value.copy())[2] == ""


def test_what_probabilities_look_like():
    assert not are_probabilities(LOGITS)
    assert are_probabilities(EXPECTED)
    assert are_probabilities(np.round(EXPECTED * 256) / 256)
    assert are_probabilities(np.concatenate([EXPECTED, np.full((1, 3), np.nan, np.float32)]))
    assert not are_probabilities(np.full((1, 3), np.nan, np.float32))
    # A thousand classes in steps of 1/256: all but the likely ones are rounded away.
    flat = np.zeros((1, 1000), np.float32)
    flat[0, :3] = 0.1
    assert are_probabilities(flat)


def test_nothing_but_the_answer_is_written():
    file, model = shared_file("mlperf_tiny_resnet8_int8.tflite"), shared_file("mlperf_tiny_resnet8.h5")
    data = shared_file("cifar10_test500.npz")
    arguments = ["verify", file, "--against", model, "--preprocess", "raw", "--data", data]
    command = [sys.executable, "-m", "resnet_edge", *map(str, arguments), "--samples", "10"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("against") / "bundle"
    export(TRAPS["bias_before_batch_norm"](), folder, ExportOptions(formats=("onnx",), preprocess="tf"))
    return folder


def test_a_bundle_as_the_float_model(bundle):
    kept = open_against(bundle, ExportOptions())
    assert kept.preprocessing.name == "tf"
    file = open_foreign(next(bundle.glob("*.onnx")))
    check_match(file, kept, kept.preprocessing)
    inputs = np.random.default_rng(0).uniform(-1, 1, (3, *kept.image_shape)).astype(np.float32)
    with file.open() as engine:
        # Float32 sums in another order; Keras against ONNX Runtime is allowed 1e-4 everywhere.
        np.testing.assert_allclose(engine.run(inputs), kept.run(inputs), atol=1e-4)


def test_a_bundle_has_its_own_preprocessing(bundle):
    with pytest.raises(UsageError, match="--preprocess does not go with a bundle"):
        open_against(bundle, RAW)


def test_a_float_model_changed_in_the_bundle(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    (copy / "reference.keras").write_bytes(b"other")
    with pytest.raises(ModelRejectedError, match="changed after the export"):
        open_against(copy, ExportOptions())


def test_custom_layers_run_without_their_code(tmp_path):
    folder = tmp_path / "bundle"
    code = tmp_path / "layers.py"
    code.write_text(CUSTOM_LAYER)
    namespace: dict[str, Any] = {}
    exec(compile(CUSTOM_LAYER, str(code), "exec"), namespace)
    source = namespace["model"]()
    source.save(tmp_path / "own.keras")
    options = ExportOptions(formats=("onnx",), preprocess="unit", custom_objects=code)
    export(tmp_path / "own.keras", folder, options)
    kept = open_against(folder, ExportOptions())
    assert kept.engine == "TensorFlow"
    inputs = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 3)).astype(np.float32)
    # The same operations, once traced and once called: float32's rounding.
    np.testing.assert_allclose(kept.run(inputs), np.asarray(source(inputs)), atol=1e-5)


CUSTOM_LAYER = """
import keras
from keras import layers


@keras.saving.register_keras_serializable("own")
class Unit(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(3, 3, padding="same")

    def build(self, shape):
        self.conv.build(shape)
        super().build(shape)

    def call(self, inputs):
        return inputs + self.conv(inputs)


def model():
    image = layers.Input((8, 8, 3))
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(Unit(name="unit")(image))))
"""
