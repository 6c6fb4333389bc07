"""What files say of themselves against the manifest, in every format."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from resnet_edge.manifest import read_manifest
from resnet_edge.pipeline import ExportOptions, export
from resnet_edge.verification.embedded import embedded_differences
from tests.traps import TRAPS

LABELS = ("cat", "dog", "bird", "fish", "fox")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    names = folder / "labels.txt"
    names.write_text("\n".join(LABELS) + "\n")
    options = ExportOptions(preprocess="torch", labels=names)
    return export(TRAPS["bias_before_batch_norm"](), folder / "bundle", options).bundle


@pytest.fixture(params=["tflite", "onnx", "savedmodel"])
def differences(request, bundle):
    """The differences of one format's artifact to a manifest."""
    (record,) = [record for record in read_manifest(bundle).artifacts if record.format == request.param]
    return lambda manifest: embedded_differences(bundle / record.path, record.format, manifest)


def test_what_was_just_written_agrees(bundle, differences):
    assert differences(read_manifest(bundle)) == []


def test_another_preprocessing(bundle, differences):
    manifest = read_manifest(bundle)
    changed = replace(manifest, preprocessing={**manifest.preprocessing, "order": "bgr"})
    (difference,) = differences(changed)
    assert "preprocessing order rgb, the manifest says bgr" in difference


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (("cat", "fox", "bird", "fish", "dog"), "class 1 is 'dog', the manifest says 'fox'"),
        (LABELS[:-1], "class 4 is 'fox', the manifest says missing"),
        ((), "class 0 is 'cat', the manifest says missing"),
    ],
)
def test_other_labels(bundle, differences, labels, says):
    (difference,) = differences(replace(read_manifest(bundle), labels=labels))
    assert says in difference


def test_a_file_that_says_nothing_contradicts_nothing(bundle, tmp_path):
    import onnx

    path = tmp_path / "silent.onnx"
    shutil.copyfile(next(bundle.glob("*.onnx")), path)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    assert embedded_differences(path, "onnx", read_manifest(bundle)) == []


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_damaged_record(bundle, tmp_path, text):
    import onnx

    path = tmp_path / "damaged.onnx"
    shutil.copyfile(next(bundle.glob("*.onnx")), path)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"preprocessing": text})
    onnx.save(model, path)
    (difference,) = embedded_differences(path, "onnx", read_manifest(bundle))
    assert "damaged" in difference


def test_a_format_of_another_distribution(bundle):
    assert embedded_differences(next(bundle.glob("*.onnx")), "theirs", read_manifest(bundle)) == []
