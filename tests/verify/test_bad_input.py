"""What goes wrong around a verification: one clear answer, the right exit code, no traceback."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_edge.data.shipped import FASHION_MNIST_LABELS
from tests.command_line import run
from tests.shared_data import shared_file
from tests.traps import TRAPS

PASSED, FAILED, USAGE, REJECTED, MISSING, NOT_WRITTEN = 0, 1, 2, 3, 4, 5

INT8, FLOAT = "resnet8-int8.tflite", "resnet8-fp32.onnx"


@pytest.fixture
def refused(capsys):
    """Run a verification that must be refused; check what all refusals have in common."""

    def check(code: int, *arguments: object, says: tuple[str, ...]) -> None:
        result = run(capsys, "verify", *arguments)
        assert result.code == code, result.err
        assert result.err.startswith("error: ")
        assert "Traceback" not in result.err
        assert result.out == ""
        for text in says:
            assert text in result.err
        as_json = run(capsys, "verify", *arguments, "--json")
        assert as_json.code == code
        assert as_json.json["error"]["exit_code"] == code

    return check


def verdicts(document, name):
    """The checks of a name by artifact: verdict and sentence."""
    return {
        check["artifact"]: (check["verdict"], check["sentence"])
        for check in document["checks"]
        if check["name"] == name
    }


@pytest.mark.parametrize("name", [INT8, FLOAT])
def test_artifact_changed_after_export(own_bundle, capsys, name):
    content = bytearray((own_bundle / name).read_bytes())
    content[len(content) // 2] ^= 1  # the last bit of some weight
    (own_bundle / name).write_bytes(content)
    result = run(capsys, "verify", own_bundle, "--json")
    assert result.code == FAILED, result.err
    files = verdicts(result.json, "files")
    assert {artifact for artifact, (verdict, _) in files.items() if verdict == "fail"} == {name}
    assert f"{name} was changed after it was written" in files[name][1]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_artifact_missing(own_bundle, refused):
    (own_bundle / INT8).unlink()
    refused(REJECTED, own_bundle, says=("lacks an artifact", INT8))


@pytest.mark.parametrize(("change", "says"), [(Path.unlink, "lacks"), (truncated, "changed")])
def test_float_model_changed_or_gone_though_its_outputs_are_kept(own_bundle, capsys, refused, change, says):
    assert run(capsys, "verify", own_bundle, "--artifact", FLOAT).code == PASSED
    change(own_bundle / "reference.keras")
    refused(REJECTED, own_bundle, "--artifact", FLOAT, says=(says, "reference.keras"))


def test_a_missing_artifact_that_nobody_asked_for_does_no_harm(own_bundle, capsys):
    (own_bundle / INT8).unlink()
    assert run(capsys, "verify", own_bundle, "--artifact", FLOAT).code == PASSED


@pytest.mark.parametrize("file", ["resnet8-int8.spec.json", "resnet8-int8.integers.safetensors"])
def test_spec_or_integers_missing(own_bundle, capsys, file):
    (own_bundle / file).unlink()
    result = run(capsys, "verify", own_bundle, "--artifact", INT8, "--json")
    assert result.code == FAILED, result.err
    assert f"{file} is gone" in verdicts(result.json, "files")[INT8][1]


@pytest.mark.parametrize(
    ("change", "says"), [(Path.unlink, "lacks its graph"), (truncated, "graph was changed")]
)
def test_graph_changed_or_gone(own_bundle, capsys, change, says):
    change(own_bundle / "graph.safetensors")
    result = run(capsys, "verify", own_bundle, "--artifact", INT8, "--json")
    assert result.code == FAILED, result.err
    assert says in verdicts(result.json, "files")[INT8][1]


def edit_manifest(bundle: Path, **values: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_bundle_of_a_newer_schema(own_bundle, refused):
    edit_manifest(own_bundle, schema=99)
    refused(REJECTED, own_bundle, says=("newer resnet-edge", "schema 99", "upgrade"))


def test_contract_of_another_type(own_bundle, refused, capsys):
    contract = json.loads((own_bundle / "manifest.json").read_text())["preprocessing"]
    edit_manifest(own_bundle, preprocessing={**contract, "order": "grb"})
    refused(REJECTED, own_bundle, says=("not a preprocessing contract", "'grb'"))
    shown = run(capsys, "inspect", own_bundle)
    assert shown.code == REJECTED
    assert "'grb'" in shown.err


def test_manifest_that_breaks_off(own_bundle, refused):
    path = own_bundle / "manifest.json"
    path.write_text(path.read_text()[:-200])
    refused(REJECTED, own_bundle, says=("manifest.json",))


def test_artifact_outside_of_the_bundle(own_bundle, refused):
    artifacts = json.loads((own_bundle / "manifest.json").read_text())["artifacts"]
    artifacts[0]["path"] = "../elsewhere.tflite"
    edit_manifest(own_bundle, artifacts=artifacts)
    refused(REJECTED, own_bundle, says=("no file name",))


def test_nothing_of_that_name(tmp_path, refused):
    refused(USAGE, tmp_path / "nothing", says=("nothing",))


def test_a_folder_that_is_no_bundle(tmp_path, refused):
    refused(REJECTED, tmp_path, says=("not a bundle", str(tmp_path)))


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (pixels(4, 28, 28, 3), "(4, 28, 28, 3)"),
        (pixels(4, 1, 28, 28), "channels last"),
        (pixels(4, 28, 28), "(4, 28, 28)"),
        (np.zeros((4, 32, 32, 1), np.float32), "(N, 28, 28, 1)"),
        (np.full((4, 28, 28, 1), 99.0, np.float32), "image 0"),
        (np.full((4, 28, 28, 1), np.nan, np.float32), "NaN"),
    ],
    ids=["channels", "channels first", "no channels", "float size", "float range", "nan"],
)
def test_data_of_another_kind(small_bundle, refused, tmp_path, images, says):
    refused(REJECTED, small_bundle, "--data", saved(tmp_path / "data.npz", images=images), says=(says,))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1, 2, 10], ("image 3", "0 to 9")),
        ([0, -1, 2, 3], ("label -1",)),
        ([0, 1, 2], ("(3,)",)),
        ([0.0, 1.0, 2.0, 3.0], ("float64",)),
    ],
    ids=["of a model with more classes", "negative", "too few", "floats"],
)
def test_labels_out_of_range(small_bundle, refused, tmp_path, labels, says):
    data = saved(tmp_path / "data.npz", images=pixels(4, 28, 28, 1), labels=np.array(labels))
    refused(REJECTED, small_bundle, "--data", data, says=says)


def test_empty_data(small_bundle, refused, tmp_path):
    data = saved(tmp_path / "data.npz", images=pixels(0, 28, 28, 1), labels=np.zeros(0, np.int64))
    refused(REJECTED, small_bundle, "--data", data, says=("data.npz",))


def test_empty_folder(small_bundle, refused, tmp_path):
    (tmp_path / "images" / "Bag").mkdir(parents=True)
    refused(REJECTED, small_bundle, "--data", tmp_path / "images", says=("no images in the folder",))


def image_folder(folder: Path, *, damaged: int) -> Path:
    """Forty images of the model's classes, the first few of them damaged."""
    for number in range(40):
        path = folder / FASHION_MNIST_LABELS[number % 10].replace("/", "-") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(28, 28)).save(path)
        if number < damaged:
            path.write_bytes(b"not an image")
    return folder


@pytest.fixture
def unnamed_classes(own_bundle):
    """A bundle without names of classes, so that folders need not have them."""
    edit_manifest(own_bundle, labels=[])
    return own_bundle


def test_unreadable_images_are_named_counted_and_left_out(unnamed_classes, capsys, tmp_path):
    folder = image_folder(tmp_path / "images", damaged=2)
    result = run(capsys, "verify", unnamed_classes, "--artifact", FLOAT, "--data", folder, "--json")
    data = result.json["data"]
    assert data["images"] == 38
    left_out = [note for note in data["notes"] if "left out" in note]
    assert len(left_out) == 2
    for number, note in enumerate(sorted(left_out)):
        assert f"{number}.png" in note


def test_too_many_unreadable_images(unnamed_classes, refused, tmp_path):
    folder = image_folder(tmp_path / "images", damaged=20)
    refused(REJECTED, unnamed_classes, "--data", folder, says=("too many", "20"))


def test_a_folder_of_other_classes(small_bundle, refused, tmp_path):
    (tmp_path / "images" / "wombat").mkdir(parents=True)
    Image.fromarray(pixels(28, 28)).save(tmp_path / "images" / "wombat" / "1.png")
    refused(REJECTED, small_bundle, "--data", tmp_path / "images", says=("wombat",))


RUNTIMES = (("onnxruntime", "onnxruntime", ".onnx"), ("ai_edge_litert.interpreter", "litert", ".tflite"))


@pytest.mark.parametrize(("module", "name", "suffix"), RUNTIMES)
def test_a_runtime_that_is_not_installed(small_bundle, capsys, monkeypatch, module, name, suffix):
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    result = run(capsys, "verify", small_bundle, "--json")
    assert result.code == PASSED, result.err
    skipped = verdicts(result.json, "runtime")
    assert sorted(skipped) == sorted(f"resnet8-{precision}{suffix}" for precision in ("fp32", "int8"))
    for verdict, sentence in skipped.values():
        assert verdict == "skipped"
        assert "not installed" in sentence
        assert "pip install" in sentence
    not_run = {artifact["path"] for artifact in result.json["artifacts"] if artifact["parity"] is None}
    assert not_run == skipped.keys()
    assert len(result.json["artifacts"]) == 4
    required = run(capsys, "verify", small_bundle, "--require", name, "--json")
    assert required.code == MISSING
    assert required.json["verdict"] == "missing"


def test_no_runtime_at_all(small_bundle, refused, monkeypatch):
    for module, _, _ in RUNTIMES:
        monkeypatch.setitem(sys.modules, module, None)
    refused(MISSING, small_bundle, says=("not installed",))


@pytest.mark.parametrize("suffix", [".json", ".xml", ".md", ".html"])
def test_disk_full_while_a_report_is_written(small_bundle, capsys, monkeypatch, tmp_path, suffix):
    write = Path.write_text

    def full(path, *arguments, **options):
        if ".report." in path.name:
            write(path, "as much as there was room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *arguments, **options)

    report = tmp_path / f"report{suffix}"
    report.write_text("of last week")
    monkeypatch.setattr(Path, "write_text", full)
    result = run(capsys, "verify", small_bundle, "--artifact", FLOAT, "--report", report, "--json")
    assert result.code == NOT_WRITTEN
    assert result.json["verdict"] == "pass", "the result is not lost, and one document"
    for text in ("error: cannot write the report", report.name, "No space left"):
        assert text in result.err
    assert report.read_text() == "of last week"
    assert list(tmp_path.iterdir()) == [report]


def test_a_file_without_its_model(small_bundle, refused):
    refused(USAGE, small_bundle / INT8, says=("--against",))


def test_a_file_of_another_model(small_bundle, refused, tmp_path):
    path = tmp_path / "model.keras"
    TRAPS["bias_before_batch_norm"]().save(path)
    says = ("not made from this model", INT8, "(28, 28, 1)")
    refused(REJECTED, small_bundle / INT8, "--against", path, "--preprocess", "unit", says=says)


def test_a_file_that_is_no_model(refused, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("accuracy 0.93\n")
    refused(REJECTED, path, "--against", "resnet8", says=("model.tflite",))


def test_another_tools_file_against_its_model(capsys):
    data = shared_file("cifar10_test500.npz")
    arguments = ("--against", shared_file("mlperf_tiny_resnet8.h5"), "--preprocess", "raw", "--data", data)
    result = run(capsys, "verify", shared_file("mlperf_tiny_resnet8_int8.tflite"), *arguments, "--json")
    assert result.code == PASSED, result.err
    (artifact,) = result.json["artifacts"]
    # The published figures: 89.0 % in float, 88.4 % in int8, of the first 500 test images.
    assert artifact["accuracy"]["reference_top1"]["count"] == 445
    assert artifact["accuracy"]["top1"]["count"] == 442
    assert artifact["parity"]["top1_agreement"]["count"] == 486
    assert artifact["parity"]["max_lsb"] == pytest.approx(artifact["parity"]["max_abs_error"] * 256)
    assert any("int8 (100% of the multiply-accumulates)" in note for note in result.json["notes"])
