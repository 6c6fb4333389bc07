"""What users get wrong: one clear error, the right exit code, nothing half-written, no traceback."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.command_line import run
from tests.traps import TRAPS, classifier, image

USAGE, REJECTED, MISSING, FAILED = 2, 3, 4, 5


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.keras"
    TRAPS["bias_before_batch_norm"]().save(path)
    return path


@pytest.fixture
def rejected(capsys, tmp_path):
    """Run an export that must fail; check what every failure has in common."""

    def check(code: int, *arguments: object, says: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = run(capsys, "export", "-o", tmp_path / "bundle", *arguments)
        assert result.code == code, result.err
        assert says in result.err
        assert result.err.startswith(("error: ", "Usage: ", "Error: ", "warning: "))
        assert "Traceback" not in result.err
        assert result.out == ""
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return result.err

    return check


def test_missing_file(rejected, tmp_path):
    rejected(REJECTED, tmp_path / "none.keras", says="none.keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_truncated_file(rejected, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    TRAPS["bias_before_batch_norm"]().save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    rejected(REJECTED, path, says=path.name)


def test_truncated_weights(rejected, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"conv1.weight": np.zeros((16, 3, 3, 3), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    rejected(REJECTED, "resnet20", "--weights", path, says=path.name)


def test_text_file_renamed(rejected, tmp_path):
    path = tmp_path / "model.h5"
    path.write_text("accuracy 0.93\n")
    rejected(REJECTED, path, says="model.h5")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(rejected, tmp_path, value):
    model = TRAPS["bias_before_batch_norm"]()
    kernel = model.layers[1].kernel.numpy()
    kernel[0, 0, 0, 0] = value
    model.layers[1].kernel.assign(kernel)
    path = tmp_path / "model.keras"
    model.save(path)
    rejected(REJECTED, path, says=model.layers[1].name)


def test_weights_of_another_depth(rejected, tmp_path):
    from resnet_edge.models.build import build_model
    from resnet_edge.models.registry import find_model

    path = tmp_path / "deep.weights.h5"
    build_model(find_model("resnet32"), seed=None).save_weights(path)
    rejected(REJECTED, "resnet20", "--weights", path, says="resnet32")


def test_wrong_class_count(rejected, tmp_path):
    from resnet_edge.models.build import build_model
    from resnet_edge.models.registry import find_model

    path = tmp_path / "hundred.weights.h5"
    build_model(find_model("resnet20"), classes=100, seed=None).save_weights(path)
    rejected(REJECTED, "resnet20", "--weights", path, says="--classes")


def test_unknown_model_has_the_nearest_names(rejected):
    rejected(USAGE, "resnet5O", says="resnet50")


def test_unknown_format(rejected, model_file):
    rejected(USAGE, model_file, "--format", "coreml", says="tflite")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--batch", "0"), "--batch"),
        (("--batch", "many"), "dynamic"),
        (("--input-shape", "224"), "224,224,3"),
        (("--weights", "imagenet"), "--weights"),
        (("--classes", "5"), "--classes"),
        (("--width", "0.5"), "--width"),
        (("--preprocess", "caffee"), "torch"),
        (("--opset", "3"), "opset"),
        (("--onnx-layout", "nchwc"), "nhwc"),
    ],
)
def test_options_that_make_no_sense(rejected, model_file, options, says):
    rejected(USAGE, model_file, *options, says=says)


def test_too_small_an_input(rejected):
    rejected(REJECTED, "resnet50", "--input-shape", "16,16,3", says="--input-shape")


def test_labels_that_do_not_match(rejected, model_file, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    rejected(REJECTED, model_file, "--labels", labels, says="2 labels")


def _save(model, path):
    model.save(path)
    return path


def test_two_inputs(rejected, tmp_path):
    a, b = image(), image()
    model = keras.Model([a, b], classifier(layers.Add()([a, b])))
    rejected(REJECTED, _save(model, tmp_path / "two.keras"), says="2 inputs")


def test_two_outputs(rejected, tmp_path):
    x = image()
    model = keras.Model(x, [classifier(x), classifier(x)])
    rejected(REJECTED, _save(model, tmp_path / "two.keras"), says="2 outputs")


def test_channels_first(rejected, tmp_path):
    x = keras.Input((3, 16, 16))
    y = layers.Conv2D(4, 3, data_format="channels_first")(x)
    y = layers.GlobalAveragePooling2D(data_format="channels_first")(y)
    model = keras.Model(x, layers.Dense(3)(y))
    rejected(REJECTED, _save(model, tmp_path / "first.keras"), says="channels_first")


def test_savedmodel_as_model(rejected, tmp_path):
    folder = tmp_path / "saved"
    TRAPS["bias_before_batch_norm"]().export(folder, verbose=False)
    rejected(REJECTED, folder, says=".keras")


def test_unsupported_layer(rejected, tmp_path):
    x = image()
    model = keras.Model(x, classifier(layers.LayerNormalization(name="odd_one")(x)))
    message = rejected(REJECTED, _save(model, tmp_path / "odd.keras"), says="odd_one")
    assert "LayerNormalization" in message


def test_lambda_layer_needs_consent(rejected, tmp_path, capsys):
    x = image()
    model = keras.Model(x, classifier(layers.Lambda(lambda t: t * 2.0, name="twice")(x)))
    path = _save(model, tmp_path / "lambda.keras")
    rejected(REJECTED, path, says="--allow-unsafe-code")
    result = run(capsys, "export", path, "-o", tmp_path / "out", "--allow-unsafe-code", "--format", "tflite")
    assert result.code == 0, result.err


def test_output_is_a_file(capsys, model_file, tmp_path):
    (tmp_path / "bundle").write_text("keep me")
    result = run(capsys, "export", model_file, "-o", tmp_path / "bundle")
    assert result.code == USAGE
    assert (tmp_path / "bundle").read_text() == "keep me"


def test_output_folder_with_other_files(capsys, model_file, tmp_path):
    (tmp_path / "thesis.tex").write_text("keep me")
    result = run(capsys, "export", model_file, "-o", tmp_path)
    assert result.code == USAGE
    assert "not a bundle" in result.err
    assert (tmp_path / "thesis.tex").read_text() == "keep me"


def test_output_that_cannot_be_written(capsys, model_file):
    # Even root may not make folders there.
    result = run(capsys, "export", model_file, "-o", "/proc/bundle", "--format", "tflite")
    assert result.code in (USAGE, FAILED)
    assert "/proc" in result.err


def test_parent_of_output_is_a_file(capsys, model_file, tmp_path):
    (tmp_path / "file").write_text("")
    assert run(capsys, "export", model_file, "-o", tmp_path / "file" / "bundle").code == USAGE


@pytest.mark.parametrize("target", ["-fp32.tflite", "-fp32.onnx", "manifest.json", "reference.keras"])
def test_disk_full_while_writing(capsys, model_file, tmp_path, monkeypatch, target):
    """A full disk at any of the files: exit 5, and the older bundle is still whole."""
    import errno

    bundle = tmp_path / "bundle"
    assert run(capsys, "export", model_file, "-o", bundle).code == 0
    before = {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()}

    def full(path: object, mode: str = "w") -> None:
        if str(path).endswith(target) and mode[0] in "wxa":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    real_open, real_copy = Path.open, shutil.copyfile

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        full(path, mode)
        return real_open(path, mode, *args, **options)

    def copied(source: Path, destination: Path) -> Path:
        full(destination)
        return real_copy(source, destination)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(shutil, "copyfile", copied)
    result = run(capsys, "export", model_file, "-o", bundle, "--batch", "2")
    assert result.code == FAILED
    assert "No space left" in result.err
    assert {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_json_errors_are_one_document(capsys, tmp_path):
    result = run(capsys, "export", "resnet5O", "-o", tmp_path / "b", "--json")
    assert json.loads(result.out)["error"]["exit_code"] == USAGE
