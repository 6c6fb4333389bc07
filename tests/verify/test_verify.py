"""``resnet-edge verify`` end to end: what a report holds, where it comes from, and what decides."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from resnet_edge import bundle as bundles
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.errors import RunnerUnreachableError
from resnet_edge.manifest import read_manifest, write_manifest
from resnet_edge.pipeline import ExportOptions, QuantizeOptions, VerifyOptions, quantize, verify
from resnet_edge.runners.local import LocalRunner
from resnet_edge.verification.reference import KEPT, cache_file, keep
from resnet_edge.verification.target import BundleTarget
from tests.command_line import run

PASSED, FAILED, USAGE, MISSING, UNREACHABLE, INCONCLUSIVE = 0, 1, 2, 4, 6, 7


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("verified") / "bundle"
    quantize(
        "resnet8",
        bundle,
        QuantizeOptions(recipes=("int8", "fp16"), samples=100),
        ExportOptions(weights="fashion-mnist"),
    )
    return bundle


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


def test_every_artifact_is_compared_with_keras_on_the_images_held_back(made):
    report = verify(made)
    assert report.exit_code == PASSED
    assert {artifact.path for artifact in report.artifacts} == {
        artifact.path for artifact in read_manifest(made).artifacts
    }
    assert report.data.images == 256
    assert report.data.labelled
    for artifact in report.artifacts:
        assert artifact.parity is not None
        assert artifact.parity.images == 256
        assert artifact.accuracy is not None
        quantized = artifact.precision == "int8"
        assert (artifact.parity.max_lsb is not None) == quantized
        assert artifact.parity.sqnr_db is not None
        # Float runtimes are some 130 dB from Keras, float16 some 70, int8 some 40.
        assert artifact.parity.sqnr_db > {"fp32": 100, "fp16": 55, "int8": 25}[artifact.precision]


def test_json_is_one_document(made, capsys):
    result = run(capsys, "verify", made, "--artifact", "*-int8.tflite", "--samples", "32", "--json")
    assert result.code == PASSED, result.err
    assert result.json["kind"] == "resnet-edge report"
    assert [artifact["path"] for artifact in result.json["artifacts"]] == ["resnet8-int8.tflite"]
    assert result.json["data"]["images"] == 32


def test_the_reference_runs_once(bundle, monkeypatch):
    options = VerifyOptions(artifacts=("*-fp32.onnx",))
    first = verify(bundle, options)
    from resnet_edge.verification import target

    def never(*arguments):
        raise AssertionError("the float model was loaded again")

    monkeypatch.setattr(target, "open_against", never)
    second = verify(bundle, options)
    assert [artifact.parity for artifact in second.artifacts] == [
        artifact.parity for artifact in first.artifacts
    ]


def test_outputs_are_kept_apart_by_what_the_float_model_was_given(made):
    target = BundleTarget(made, ())
    contracts = [Preprocessing.parse(name, 1, (28, 28)) for name in ("tf", "unit")]
    assert contracts[0].folded() == contracts[1].folded(), "files that take pixels are given the same"
    target.contract = contracts[0]
    first, again = (cache_file(target, "the same images") for _ in range(2))
    target.contract = contracts[1]
    assert first == again != cache_file(target, "the same images")


def test_a_damaged_cache_is_computed_again(bundle):
    options = VerifyOptions(artifacts=("*-fp32.onnx",))
    first = verify(bundle, options)
    caches = list(bundle.glob("reference-*.npy"))
    assert caches
    for cache in caches:
        cache.write_bytes(cache.read_bytes()[:64])
    assert verify(bundle, options).artifacts == first.artifacts


def test_an_interruption_leaves_no_half_of_a_reference(tmp_path, monkeypatch):
    def interrupted(stream, outputs, **options):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path / "reference-0.npy", np.zeros((1, 10), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_few_references_are_kept(bundle):
    for samples in range(10, 10 + 2 * KEPT):
        verify(bundle, VerifyOptions(artifacts=("*-fp32.onnx",), samples=samples))
    assert len(list(bundle.glob("reference-*.npy"))) == KEPT


def test_a_gate_on_the_drop_decides_in_three_ways(made, capsys):
    arguments = ("verify", made, "--artifact", "*-int8.tflite", "--data", "fashion-mnist")
    assert run(capsys, *arguments, "--samples", "1000", "--max-drop", "3").code == PASSED
    too_few = run(capsys, *arguments, "--samples", "20", "--max-drop", "1", "--json")
    assert too_few.code == INCONCLUSIVE
    (check,) = [check for check in too_few.json["checks"] if check["name"] == "drop"]
    assert "more images" in check["sentence"]
    assert run(capsys, *arguments, "--samples", "200", "--min-sqnr", "90").code == FAILED


def test_a_gate_on_the_drop_without_labels_does_not_pass(made, capsys, tmp_path):
    data = tmp_path / "unlabelled.npz"
    np.savez(data, images=np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), np.uint8))
    arguments = ("verify", made, "--artifact", "*-fp32.tflite", "--data", data)
    assert run(capsys, *arguments).code == PASSED
    assert run(capsys, *arguments, "--max-drop", "50").code == INCONCLUSIVE


def edited(bundle, name, change):
    """Change an artifact, and the manifest's digest of it with it."""
    path = bundle / name
    path.write_bytes(change(path.read_bytes()))
    manifest = read_manifest(bundle)
    artifacts = tuple(
        replace(record, sha256=bundles.digest(path)) if record.path == name else record
        for record in manifest.artifacts
    )
    write_manifest(bundle, replace(manifest, artifacts=artifacts))


def test_a_scale_edited_by_hand_is_named(bundle, capsys):
    name = "resnet8-int8.tflite"
    spec = json.loads((bundle / "resnet8-int8.spec.json").read_text())
    node, quant = list(spec["tensors"].items())[1]
    old, new = np.float32(quant["scale"]).tobytes(), np.float32(quant["scale"] * 1.5).tobytes()
    edited(bundle, name, lambda content: content.replace(old, new))
    result = run(capsys, "verify", bundle, "--artifact", name, "--samples", "64", "--json")
    assert result.code == FAILED
    (check,) = [check for check in result.json["checks"] if check["name"] == "files"]
    assert check["verdict"] == "fail"
    assert f"scale of {node!r}" in check["sentence"]


def test_a_moved_bundle_verifies_without_the_model(bundle, tmp_path):
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    bundle.rename(moved)
    assert verify(moved, VerifyOptions(artifacts=("*-int8.onnx",))).exit_code == PASSED


def test_float_artifacts_alone_are_verified_on_seeded_inputs(tmp_path):
    from resnet_edge.pipeline import export

    bundle = tmp_path / "bundle"
    export("resnet8", bundle, ExportOptions(weights="fashion-mnist", formats=("onnx",)))
    report = verify(bundle)
    assert report.exit_code == PASSED
    assert report.data.name == "seeded images"
    assert not report.data.labelled


def test_integers_on_seeded_inputs_are_inconclusive(bundle):
    manifest = read_manifest(bundle)
    write_manifest(bundle, replace(manifest, held_back=None))
    report = verify(bundle, VerifyOptions(artifacts=("*-int8.tflite",)))
    assert report.exit_code == INCONCLUSIVE
    assert any("--data" in check.sentence for check in report.checks if check.verdict == "inconclusive")


def test_images_calibrated_on_are_told(made):
    from resnet_edge.data.shipped import dataset

    source = str(dataset("fashion-mnist").calibration)
    report = verify(made, VerifyOptions(artifacts=("*-fp16.onnx",), data=source))
    assert any("calibrated on" in note for note in report.data.notes)


def test_latency_of_every_artifact_and_its_speedup(made):
    chosen = ("*-fp32.tflite", "*-int8.tflite")
    report = verify(made, VerifyOptions(artifacts=chosen, samples=16, latency=True, threads=1))
    first, second = (artifact.latency for artifact in report.artifacts)
    assert first is not None
    assert second is not None
    assert first.speedup is None
    assert second.speedup is not None
    assert 0 < second.median_ms <= second.p90_ms <= second.p99_ms
    assert second.speedup.low <= second.speedup.value <= second.speedup.high


def test_folded_inputs_take_pixels(tmp_path):
    bundle = tmp_path / "bundle"
    options = ExportOptions(weights="fashion-mnist", formats=("tflite",), fold_input=True, preprocess="tf")
    quantize("resnet8", bundle, QuantizeOptions(recipes=("int8",), samples=50, io="uint8"), options)
    assert verify(bundle, VerifyOptions(samples=64)).exit_code == PASSED
    # Its files by themselves say nothing of that: --fold-input does.
    file = bundle / "resnet8-fp32.tflite"
    alone = VerifyOptions(against=str(bundle), data="fashion-mnist", samples=32)
    assert verify(file, alone).exit_code == FAILED
    assert verify(file, alone, ExportOptions(fold_input=True)).exit_code == PASSED


def test_an_artifact_that_did_not_run_has_its_row(small_bundle, monkeypatch):
    from resnet_edge.errors import DependencyMissingError
    from resnet_edge.runners.local import LocalRunner

    whole = LocalRunner.open

    def without_onnx(self, load):
        if load.format == "onnx":
            raise DependencyMissingError("ONNX Runtime is not installed")
        return whole(self, load)

    monkeypatch.setattr(LocalRunner, "open", without_onnx)
    report = verify(small_bundle, VerifyOptions(samples=8))
    assert report.exit_code == PASSED
    rows = {artifact.path: artifact for artifact in report.artifacts}
    assert set(rows) == {artifact.path for artifact in read_manifest(small_bundle).artifacts}
    assert rows["resnet8-int8.onnx"].engine == "not run"
    assert rows["resnet8-int8.onnx"].parity is None
    assert rows["resnet8-int8.tflite"].parity is not None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--artifact", "nothing*"), "--artifact nothing*"),
        (("--require", "cuda"), "--require cuda"),
        (("--against", "resnet8"), "--against resnet8"),
        (("--runner", "moon"), "--runner moon"),
        (("--max-drop", "-1"), "--max-drop"),
        (("--confidence", "95"), "--confidence"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--preprocess", "torch"), "--preprocess"),
        (("--report", "report.pdf"), "report.pdf"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_any_work(made, capsys, arguments, named):
    result = run(capsys, "verify", made, *arguments)
    assert result.code == USAGE
    assert named in result.err


def test_a_gate_on_the_speed_of_what_could_not_be_timed_does_not_pass(made, monkeypatch):
    def refuse(self, load):
        raise RunnerUnreachableError("the process has ended", where="local")

    monkeypatch.setattr(LocalRunner, "timer", refuse)
    options = VerifyOptions(artifacts=("*.tflite",), samples=8, latency=True)
    assert verify(made, options).exit_code == PASSED
    report = verify(made, replace(options, min_speedup=1.0))
    assert report.exit_code == INCONCLUSIVE
    assert {check.artifact for check in report.checks if check.name == "speedup"} == {
        "resnet8-int8.tflite",
        "resnet8-fp16.tflite",
    }
