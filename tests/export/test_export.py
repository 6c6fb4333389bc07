"""``resnet-edge export`` end to end: real trained models, the traps, and what a bundle holds."""

from __future__ import annotations

import hashlib
import json
import time

import numpy as np
import pytest

from resnet_edge import bundle as bundles
from resnet_edge.converters import load_converter
from resnet_edge.data.preprocessing import Preprocessing
from tests.command_line import run
from tests.shared_data import shared_file
from tests.traps import TRAPS

FORMATS = ("tflite", "onnx", "savedmodel")


def artifacts(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    return {artifact["format"]: bundle / artifact["path"] for artifact in manifest["artifacts"]}


def outputs(path, fmt, inputs):
    with load_converter(fmt).open(path) as engine:
        return engine.run(inputs)


@pytest.fixture(scope="module")
def mlperf_bundle(tmp_path_factory):
    from resnet_edge.pipeline import export

    bundle = tmp_path_factory.mktemp("mlperf") / "bundle"
    export(shared_file("mlperf_tiny_resnet8.h5"), bundle)
    return bundle


@pytest.fixture(scope="module")
def cifar_test():
    with np.load(shared_file("cifar10_test500.npz")) as data:
        return data["images"], data["labels"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_keras_2_file_keeps_its_accuracy(mlperf_bundle, cifar_test, fmt):
    images, labels = cifar_test
    probabilities = outputs(artifacts(mlperf_bundle)[fmt], fmt, images.astype(np.float32))
    # 89.0 % is what Keras itself gets on these 500 images.
    assert (probabilities.argmax(1) == labels).sum() == 445


def test_a_keras_2_file_is_exact(mlperf_bundle):
    manifest = json.loads((mlperf_bundle / "manifest.json").read_text())
    # The figure promised for this model: float32 sums in another order, on probabilities.
    assert all(artifact["proof"]["max_abs_error"] <= 1e-5 for artifact in manifest["artifacts"])
    assert manifest["model"]["name"] == "mlperf_tiny_resnet8"
    assert manifest["output"]["name"] == "probabilities"


@pytest.mark.parametrize("fmt", FORMATS)
def test_pytorch_weights_reproduce_pytorchs_logits(tmp_path, capsys, cifar_test, fmt):
    images, labels = cifar_test
    bundle = tmp_path / "bundle"
    weights = shared_file("cifar10_resnet20.safetensors")
    result = run(capsys, "export", "resnet20", "--weights", weights, "-o", bundle, "--format", fmt, "--json")
    assert result.code == 0, result.err
    contract = Preprocessing.from_json(result.json["manifest"]["preprocessing"])
    assert contract.name == "torch"
    logits = outputs(artifacts(bundle)[fmt], fmt, contract.apply(images))
    with np.load(shared_file("cifar10_resnet20_golden_logits.npz")) as golden:
        assert np.abs(logits - golden["logits"]).max() <= 1e-4  # the figure promised for this model
    assert (logits.argmax(1) == labels).mean() == pytest.approx(0.910)


@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_is_exported_and_proven(tmp_path, name):
    """The command proves each file against Keras; here it is enough that it lets all of them pass."""
    from resnet_edge.pipeline import export

    result = export(TRAPS[name](), tmp_path / "bundle")
    assert [artifact.format for artifact in result.manifest.artifacts] == sorted(FORMATS)


@pytest.mark.parametrize("batch", ["1", "3", "dynamic"])
def test_batches(tmp_path, capsys, batch):
    bundle = tmp_path / "bundle"
    arguments = ("resnet8", "--weights", "fashion-mnist", "-o", bundle, "--batch", batch, "--json")
    result = run(capsys, "export", *arguments)
    assert result.code == 0, result.err
    expected = None if batch == "dynamic" else int(batch)
    assert result.json["manifest"]["input"]["shape"][0] == expected


def test_fold_input_takes_pixels(tmp_path, capsys, cifar_test):
    images, labels = cifar_test
    bundle = tmp_path / "bundle"
    weights = shared_file("cifar10_resnet20.safetensors")
    result = run(capsys, "export", "resnet20", "--weights", weights, "-o", bundle, "--fold-input")
    assert result.code == 0, result.err
    with np.load(shared_file("cifar10_resnet20_golden_logits.npz")) as golden:
        expected = golden["logits"]
    for fmt, path in artifacts(bundle).items():
        logits = outputs(path, fmt, images.astype(np.float32))
        # Pixels are 100 times larger than normalized inputs, so float32 rounds in other places.
        assert np.abs(logits - expected).max() <= 1e-3
    assert (expected.argmax(1) == labels).mean() == pytest.approx(0.910)


def test_no_fold_keeps_the_batch_norms(tmp_path, capsys):
    result = run(capsys, "export", "resnet20", "-o", tmp_path / "b", "--no-fold", "--format", "onnx")
    assert result.code == 0, result.err
    report = run(capsys, "inspect", tmp_path / "b" / "resnet20-fp32.onnx", "--json").json
    counts = {operator["name"]: operator["count"] for operator in report["operators"]}
    assert counts["BatchNormalization"] == 19


def test_resnet50v2_reports_its_folds(tmp_path, capsys):
    result = run(capsys, "export", "resnet50v2", "-o", tmp_path / "b", "--format", "tflite", "--json")
    assert result.code == 0, result.err
    (report,) = [each for each in result.json["manifest"]["passes"] if each["name"] == "fold_batchnorm"]
    assert len([change for change in report["changes"] if change["kind"] == "BatchNorm"]) == 32
    assert len([kept for kept in report["kept"] if kept["kind"] == "BatchNorm"]) == 17
    assert all(kept["reason"] for kept in report["kept"])
    operators = run(capsys, "inspect", tmp_path / "b" / "resnet50v2-fp32.tflite", "--json").json["operators"]
    counts = {operator["name"]: operator["count"] for operator in operators}
    assert counts["DEPTHWISE_CONV_2D"] == 17
    assert counts["CONV_2D"] == 53
    assert counts["ADD"] == 16  # the residual ones; by a constant there is none
    assert "MUL" not in counts


def test_the_same_model_gives_the_same_bytes(tmp_path, capsys, monkeypatch):
    digests = []
    for day in (0, 400 * 24 * 3600):
        now = time.time
        monkeypatch.setattr(time, "time", lambda now=now, day=day: now() + day)
        bundle = tmp_path / f"bundle{day}"
        assert run(capsys, "export", "resnet8", "--weights", "fashion-mnist", "-o", bundle).code == 0
        monkeypatch.undo()
        digests.append(
            [hashlib.sha256(artifacts(bundle)[fmt].read_bytes()).hexdigest() for fmt in FORMATS[:2]]
        )
    assert digests[0] == digests[1]


def test_the_manifest_tells_the_truth(mlperf_bundle):
    manifest = json.loads((mlperf_bundle / "manifest.json").read_text())
    assert manifest["schema"] == 1
    for record in (*manifest["artifacts"], *manifest["reference"]):
        path = mlperf_bundle / record["path"]
        assert bundles.digest(path) == record["sha256"]
        assert bundles.size(path) == record["size"]
    assert manifest["preprocessing"]["name"] == "raw"
    assert any("raw" in warning for warning in manifest["warnings"])
    assert manifest["model"]["digest"] == bundles.digest(shared_file("mlperf_tiny_resnet8.h5"))
    assert manifest["versions"].keys() >= {"tensorflow", "keras", "onnxruntime", "ai-edge-litert"}


def test_random_weights_are_announced(tmp_path, capsys):
    result = run(capsys, "export", "resnet8", "-o", tmp_path / "b", "--format", "tflite")
    assert result.code == 0
    assert "random weights" in result.err
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["model"]["weights"] == "random"


def test_running_again_replaces_the_bundle(tmp_path, capsys):
    bundle = tmp_path / "b"
    assert run(capsys, "export", "resnet8", "-o", bundle, "--format", "onnx").code == 0
    assert run(capsys, "export", "resnet20", "-o", bundle, "--format", "tflite").code == 0
    names = {path.name for path in bundle.iterdir()}
    assert names == {
        "manifest.json",
        "graph.safetensors",
        "reference.keras",
        "resnet20-fp32.tflite",
        "run_tflite.py",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_custom_objects(tmp_path, capsys):
    """A file with custom layers needs their code, whose digest is kept; the bundle then needs it no more."""
    path = tmp_path / "custom.keras"
    TRAPS["custom_residual_unit_in_a_sequential"]().save(path)
    code = tmp_path / "my_layers.py"
    code.write_text("from tests.traps import ResidualUnit\n")
    bundle = tmp_path / "b"
    result = run(capsys, "export", path, "-o", bundle, "--custom-objects", code, "--json")
    assert result.code == 0, result.err
    manifest = result.json["manifest"]
    assert manifest["model"]["custom_objects_digest"] == bundles.digest(code)
    assert {record["format"] for record in manifest["reference"]} == {"graph", "keras", "savedmodel"}
    import tensorflow as tf

    (folder,) = [bundle / r["path"] for r in manifest["reference"] if r["format"] == "savedmodel"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    loaded = tf.saved_model.load(folder)
    reference = loaded.serve(images).numpy()
    ours = outputs(artifacts(bundle)["tflite"], "tflite", images)
    assert np.abs(ours - reference).max() <= 1e-5  # probabilities, float32 sums in another order
