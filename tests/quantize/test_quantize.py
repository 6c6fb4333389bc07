"""``resnet-edge quantize`` end to end: what a bundle gets, and what users get wrong."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from resnet_edge import bundle as bundles
from resnet_edge import quantized_writing
from resnet_edge.converters import load_converter
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.manifest import read_manifest
from tests.command_line import run
from tests.shared_data import shared_file

USAGE, REJECTED, FAILED = 2, 3, 5


@pytest.fixture(scope="module")
def shipped_bundle(tmp_path_factory):
    from resnet_edge.pipeline import ExportOptions, export

    bundle = tmp_path_factory.mktemp("shipped") / "bundle"
    export("resnet8", bundle, ExportOptions(weights="fashion-mnist", formats=("tflite", "onnx")))
    return bundle


@pytest.fixture
def bundle(shipped_bundle, tmp_path):
    import shutil

    return shutil.copytree(shipped_bundle, tmp_path / "bundle")


def test_several_recipes_share_one_calibration_in_place(bundle, capsys):
    before = {record.path for record in read_manifest(bundle).artifacts}
    recipes = ("--recipe", "int8", "--recipe", "int8-weights", "--recipe", "fp16")
    result = run(capsys, "quantize", bundle, *recipes, "--json")
    assert result.code == 0, result.err
    assert len(list(bundle.glob("calibration-*.npz"))) == 1
    manifest = read_manifest(bundle)
    assert before < {record.path for record in manifest.artifacts}
    assert {record.precision for record in manifest.artifacts} == {"fp32", "int8", "int8-weights", "fp16"}
    for record in manifest.artifacts:
        assert bundles.digest(bundle / record.path) == record.sha256
        if record.precision != "fp32":
            assert bundles.digest(bundle / record.spec) == record.spec_sha256
            assert record.parity is not None
            assert record.parity.source == "held back"
            assert record.parity.images == 256


@pytest.mark.parametrize(
    ("formats", "loaded"),
    [(("tflite", "onnx"), []), (("tflite", "savedmodel"), ["resnet_edge.tensorflow_import"])],
)
def test_tensorflow_is_loaded_in_the_background_for_a_savedmodel_only(formats, loaded, monkeypatch):
    found: list[str] = []
    monkeypatch.setattr(quantized_writing, "import_module", found.append)
    before = set(threading.enumerate())
    quantized_writing.load_ahead(formats)
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert found == loaded


def test_a_new_bundle_shares_no_file_with_the_old_one(bundle, capsys, tmp_path):
    new = tmp_path / "new"
    assert run(capsys, "quantize", bundle, "--recipe", "fp16", "--format", "tflite", "-o", new).code == 0
    before = bundles.digest(bundle)
    for path in new.rglob("*"):
        if path.is_file():
            path.write_bytes(b"edited in place")
    assert bundles.digest(bundle) == before


def test_a_bundle_behind_a_link_is_replaced_and_the_link_stays(bundle, capsys, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(bundle, target_is_directory=True)
    assert run(capsys, "quantize", link, "--recipe", "fp16", "--format", "tflite").code == 0
    assert link.is_symlink()
    assert read_manifest(bundle).artifacts[-1].precision == "fp16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "link"]


def test_what_stays_in_a_bundle_is_not_copied(bundle, capsys):
    reference = bundle / "reference.keras"
    before = reference.stat().st_ino
    assert run(capsys, "quantize", bundle, "--recipe", "fp16", "--format", "tflite").code == 0
    assert reference.stat().st_ino == before


def test_statistics_are_not_computed_twice(bundle, capsys, monkeypatch):
    assert run(capsys, "quantize", bundle, "--recipe", "int8", "--format", "tflite").code == 0
    from resnet_edge.quantization import calibration

    def never(*arguments, **options):
        raise AssertionError("calibrated again")

    monkeypatch.setattr(calibration, "calibrate", never)
    assert run(capsys, "quantize", bundle, "--recipe", "int8-weights", "--format", "tflite").code == 0


def test_learned_rounding_comes_closer_to_float(bundle, capsys):
    ratios = {}
    for rounding in ("nearest", "learned"):
        arguments = ("--recipe", "int8-per-tensor", "--format", "tflite", "--rounding", rounding)
        assert run(capsys, "quantize", bundle, *arguments).code == 0
        (record,) = [record for record in read_manifest(bundle).artifacts if record.precision != "fp32"]
        assert record.parity is not None
        assert record.parity.sqnr_db is not None
        ratios[rounding] = record.parity.sqnr_db
    assert ratios["learned"] > ratios["nearest"]


def test_same_bytes_twice(bundle, capsys, tmp_path):
    for place in ("a", "b"):
        arguments = ("-o", tmp_path / place, "--recipe", "int8")
        assert run(capsys, "quantize", bundle, *arguments).code == 0
    for path in (tmp_path / "a").glob("*-int8*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("fmt", ["tflite", "onnx"])
def test_accuracy_of_the_shipped_model(bundle, capsys, fmt):
    """At most 0.3 points lost on all 10,000 test images, as promised."""
    from resnet_edge.data import shipped

    assert run(capsys, "quantize", bundle, "--recipe", "int8", "--format", fmt).code == 0
    manifest = read_manifest(bundle)
    with np.load(shipped.dataset("fashion-mnist").test) as data:
        inputs = Preprocessing.from_json(manifest.preprocessing).apply(data["images"])
        labels = data["labels"]
    accuracy = {}
    for record in manifest.artifacts:
        if record.format == fmt:
            with load_converter(fmt).open(bundle / record.path, threads=2) as engine:
                accuracy[record.precision] = float((engine.run(inputs).argmax(1) == labels).mean())
    assert accuracy["fp32"] - accuracy["int8"] <= 0.003


def test_a_trained_model_made_elsewhere(tmp_path, capsys):
    bundle = tmp_path / "bundle"
    model, images = shared_file("mlperf_tiny_resnet8.h5"), shared_file("cifar10_train1000.npz")
    result = run(
        capsys,
        "quantize",
        model,
        "-o",
        bundle,
        "--recipe",
        "int8",
        "--calibration",
        images,
        "--format",
        "tflite",
    )
    assert result.code == 0, result.err
    with np.load(shared_file("cifar10_test500.npz")) as data:
        inputs, labels = data["images"].astype(np.float32), data["labels"]
    with load_converter("tflite").open(bundle / "mlperf_tiny_resnet8-int8.tflite") as engine:
        correct = int((engine.run(inputs).argmax(1) == labels).sum())
    # Float: 445 of 500; the reference converter's own int8 file: 442.
    assert correct >= 440


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--recipe", "int7"), USAGE, "int8-per-tensor"),
        (("--recipe", "int16x8", "--format", "onnx"), USAGE, "savedmodel"),
        (("--recipe", "fp16", "--io", "uint8"), USAGE, "--io"),
        (("--recipe", "int8", "--override", "no_such_layer*=float"), USAGE, "no_such_layer"),
        (("--recipe", "int8", "--override", "conv*=int3"), USAGE, "int3"),
        (("--recipe", "int8", "--calibration", "nowhere.npz"), USAGE, "nowhere.npz"),
        (("--recipe", "int8", "--samples", "100000"), REJECTED, "--samples"),
        (("--recipe", "int8", "--observer", "guess"), USAGE, "percentile"),
        (("--recipe", "int8", "--rounding", "up"), USAGE, "learned"),
    ],
)
def test_options_that_make_no_sense(bundle, capsys, options, code, says):
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    result = run(capsys, "quantize", bundle, *options)
    assert result.code == code, result.err
    assert says in result.err
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_integer_recipes_need_images(tmp_path, capsys):
    result = run(capsys, "quantize", "resnet8", "-o", tmp_path / "b", "--recipe", "int8")
    assert result.code == USAGE
    assert "--calibration" in result.err
    assert list(tmp_path.iterdir()) == []


def test_an_override_keeps_a_layer_float(bundle, capsys):
    arguments = ("--recipe", "int8", "--override", "layer3.0.conv2=float", "--format", "tflite")
    result = run(capsys, "quantize", bundle, *arguments)
    assert result.code == 0, result.err
    spec = json.loads((bundle / "resnet8-int8.spec.json").read_text())
    assert "layer3.0.conv2" in spec["kept_float"]
    inspected = run(capsys, "inspect", bundle / "resnet8-int8.tflite", "--full-int8")
    assert inspected.code == 1
    assert "not all of the work" in inspected.err


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_an_int8_file_computes_in_int8_only(bundle, capsys, suffix):
    assert run(capsys, "quantize", bundle, "--recipe", "int8").code == 0
    assert run(capsys, "inspect", bundle / f"resnet8-int8{suffix}", "--full-int8").code == 0


def test_camera_pixels_go_straight_in(tmp_path, capsys):
    """uint8 with a folded input: scale exactly 1, so that a camera's bytes are the input."""
    from ai_edge_litert.interpreter import Interpreter

    bundle = tmp_path / "bundle"
    arguments = ("resnet8", "--weights", "fashion-mnist", "-o", bundle, "--fold-input", "--io", "uint8")
    result = run(capsys, "quantize", *arguments, "--recipe", "int8", "--format", "tflite")
    assert result.code == 0, result.err
    interpreter = Interpreter(str(bundle / "resnet8-int8.tflite"))
    (detail,) = interpreter.get_input_details()
    assert detail["dtype"] is np.uint8
    assert detail["quantization"] == (1.0, 0)


def test_a_changed_graph_is_noticed(bundle, capsys):
    path = bundle / "graph.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = run(capsys, "quantize", bundle, "--recipe", "fp16")
    assert result.code == REJECTED
    assert "changed after the export" in result.err


def test_what_calibration_found_is_not_told_again_after_a_better_one(bundle, capsys, tmp_path):
    with np.load(_shipped_images()) as data:
        np.savez(tmp_path / "inverted.npz", images=255 - data["images"])
    bad = run(capsys, "quantize", bundle, "--recipe", "fp16", "--calibration", tmp_path / "inverted.npz")
    assert bad.code == 0
    assert "inverted" in bad.err
    good = run(capsys, "quantize", bundle, "--recipe", "fp16")
    assert good.code == 0
    assert "inverted" not in good.err


def test_strict_makes_the_finding_an_error(bundle, capsys, tmp_path):
    with np.load(_shipped_images()) as data:
        np.savez(tmp_path / "inverted.npz", images=255 - data["images"])
    arguments = ("--recipe", "fp16", "--calibration", tmp_path / "inverted.npz", "--strict")
    assert run(capsys, "quantize", bundle, *arguments).code == REJECTED


def _shipped_images():
    from resnet_edge.data import shipped

    return shipped.dataset("fashion-mnist").calibration


def test_a_collapsed_model_is_a_failed_gate(bundle, capsys, monkeypatch):
    """Ranges a thousand times too small: exit 1, the layers named, nothing written."""
    from dataclasses import replace

    from resnet_edge.quantization import calibration

    real = calibration.calibrate

    def wrong(*arguments, **options):
        statistics = real(*arguments, **options)
        return replace(
            statistics,
            ranges={name: (low / 1e3, high / 1e3) for name, (low, high) in statistics.ranges.items()},
        )

    monkeypatch.setattr(calibration, "calibrate", wrong)
    result = run(capsys, "quantize", bundle, "--recipe", "int8", "--format", "tflite")
    assert result.code == 1, result.err
    assert "worst layers" in result.err
    assert not list(bundle.glob("*int8*"))


def test_onnx_files_of_all_precisions_have_one_layout_and_operator_set(tmp_path, capsys):
    import onnx

    bundle = tmp_path / "bundle"
    arguments = ("resnet8", "--weights", "fashion-mnist", "-o", bundle, "--format", "onnx")
    exported = run(capsys, "export", *arguments, "--opset", "18", "--onnx-layout", "nhwc", "--batch", "2")
    assert exported.code == 0, exported.err
    quantized = run(capsys, "quantize", bundle, "--recipe", "int8", "--rounding", "nearest")
    assert quantized.code == 0, quantized.err
    for precision in ("fp32", "int8"):
        model = onnx.load(bundle / f"resnet8-{precision}.onnx")
        assert model.opset_import[0].version == 18
        shape = model.graph.input[0].type.tensor_type.shape
        assert [dimension.dim_value for dimension in shape.dim] == [2, 28, 28, 1]


@pytest.mark.parametrize(
    "option", [("--preprocess", "torch"), ("--labels", "names.txt"), ("--batch", "4"), ("--no-fold",)]
)
def test_what_was_decided_at_export_cannot_be_asked_of_a_bundle(bundle, capsys, option):
    result = run(capsys, "quantize", bundle, "--recipe", "fp16", *option)
    assert result.code == USAGE, result.err
    assert f"{option[0]} does not go with a bundle" in result.err


@pytest.mark.parametrize("name", ["graph.safetensors", "resnet8-fp32.onnx"])
def test_a_bundle_that_lacks_a_file_is_refused(bundle, capsys, name):
    (bundle / name).unlink()
    result = run(capsys, "quantize", bundle, "--recipe", "fp16")
    assert result.code == REJECTED
    assert name in result.err


@pytest.mark.parametrize(
    "content", ['{"kind": "resnet-edge bun', '{"kind": "resnet-edge bundle", "schema": 1}']
)
def test_a_damaged_manifest_is_named(bundle, capsys, content):
    (bundle / "manifest.json").write_text(content)
    result = run(capsys, "quantize", bundle, "--recipe", "fp16")
    assert result.code == REJECTED, result.err
    assert "manifest.json" in result.err


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a\\b"])
def test_a_manifest_cannot_lead_out_of_its_bundle(bundle, capsys, name):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["name"] = name
    path.write_text(json.dumps(manifest))
    result = run(capsys, "quantize", bundle, "--recipe", "fp16")
    assert result.code == REJECTED, result.err
    assert "no file name" in result.err


def test_images_that_are_left_out_are_reported(bundle, capsys, tmp_path):
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(random.integers(0, 256, (28, 28), np.uint8)).save(images / f"{index}.png")
    (images / "broken.png").write_bytes(b"no image")
    arguments = ("--calibration", images, "--samples", "2", "--format", "tflite")
    result = run(capsys, "quantize", bundle, "--recipe", "fp16", *arguments)
    assert result.code == 0, result.err
    assert "broken.png is left out" in result.err


def test_equal_outputs_can_be_written_down(bundle, tmp_path):
    """Noise of zero is an infinite ratio, which JSON does not have."""
    from dataclasses import replace

    from resnet_edge.graph.serialization import load_graph
    from resnet_edge.manifest import write_manifest
    from resnet_edge.quantization.parity import Judge
    from resnet_edge.quantization.spec import Quantized

    manifest = read_manifest(bundle)
    graph = load_graph(bundle / "graph.safetensors")
    inputs = np.zeros((1, *graph.input_shape), np.float32)
    with load_converter("tflite").open(bundle / "resnet8-fp32.tflite") as engine:
        judge = Judge(source="seeded", inputs=inputs, outputs=engine.run(inputs))
        parity = judge.judge(engine, Quantized.in_float(graph), artifact="a")
    assert parity.sqnr_db is None
    artifact = replace(manifest.artifacts[0], proof=None, parity=parity)
    write_manifest(tmp_path, replace(manifest, artifacts=(artifact,)))
    assert read_manifest(tmp_path).artifacts[0].parity == parity


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("quantize", "BUNDLE", "--recipe", "int8", "--observer", "guess"), USAGE),
        (("quantize", "BUNDLE", "--recipe", "int7"), USAGE),
        (("inspect", "BUNDLE/resnet8-fp32.onnx", "--full-int8"), 1),
    ],
)
def test_a_failure_is_one_json_document_too(bundle, capsys, arguments, code):
    result = run(capsys, *(argument.replace("BUNDLE", str(bundle)) for argument in arguments), "--json")
    assert result.code == code
    assert result.json["error"]["exit_code"] == code


def test_a_recipe_never_has_two_specs(bundle, capsys):
    """Quantized anew in one format: the other format's file holds other integers, and must go."""
    assert run(capsys, "quantize", bundle, "--recipe", "int8", "--rounding", "nearest").code == 0
    assert (bundle / "resnet8-int8.onnx").exists()
    anew = ("--recipe", "int8", "--rounding", "nearest", "--observer", "minmax", "--format", "tflite")
    assert run(capsys, "quantize", bundle, *anew).code == 0
    assert not (bundle / "resnet8-int8.onnx").exists()
    quantized = [record for record in read_manifest(bundle).artifacts if record.precision != "fp32"]
    assert [record.path for record in quantized] == ["resnet8-int8.tflite"]
    # The same spec once more, in the other format: both stay.
    anew = ("--recipe", "int8", "--rounding", "nearest", "--observer", "minmax", "--format", "onnx")
    assert run(capsys, "quantize", bundle, *anew).code == 0
    quantized = [record for record in read_manifest(bundle).artifacts if record.precision != "fp32"]
    assert {record.path for record in quantized} == {"resnet8-int8.tflite", "resnet8-int8.onnx"}
    assert all((bundle / record.path).exists() for record in quantized)


def test_damaged_statistics_are_made_again(bundle, capsys):
    arguments = ("quantize", bundle, "--recipe", "int8", "--rounding", "nearest", "--format", "tflite")
    assert run(capsys, *arguments).code == 0
    (path,) = bundle.glob("calibration-*.npz")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    result = run(capsys, *arguments)
    assert result.code == 0, result.err
    assert path.read_bytes() == content
