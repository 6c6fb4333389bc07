"""``verify --layers`` and ``--bisect``: where the error is said to arise, and what is handed on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resnet_edge.manifest import read_manifest
from resnet_edge.pipeline import ExportOptions, VerifyOptions, export, verify
from tests.command_line import run

PASSED, USAGE = 0, 2


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_every_step_and_every_layer_is_looked_at(small_bundle, kernels):
    report = verify(small_bundle, VerifyOptions(samples=32, layers=True, kernels=kernels))
    assert report.exit_code == PASSED
    for artifact in report.artifacts:
        assert artifact.layers is not None
        assert artifact.layers.wrong == ()
        assert all(layer.verdict != "not run" for layer in artifact.layers.layers)
        steps = [step.name for step in artifact.waterfall]
        assert steps[0] == "folded graph"
        assert steps[-1] == artifact.engine
        assert ("int8 integer reference" in steps) == (artifact.precision == "int8")
        assert all(step.images == 32 for step in artifact.waterfall)
    assert {check.verdict for check in report.checks if check.name == "operators"} == {"pass"}


def test_reference_kernels_are_the_integer_reference_to_the_bit(small_bundle):
    options = VerifyOptions(artifacts=("*-int8.tflite",), samples=32, layers=True, kernels="reference")
    (artifact,) = verify(small_bundle, options).artifacts
    runtime = artifact.waterfall[-1]
    assert (runtime.step_sqnr_db, runtime.step_changed) == (None, 0)


def test_the_worst_operator_becomes_a_file_that_runs_alone(small_bundle, tmp_path, capsys):
    folder = tmp_path / "worst"
    arguments = ("--artifact", "*-int8.*", "--samples", "16", "--bisect", folder, "--json")
    result = run(capsys, "verify", small_bundle, *arguments)
    assert result.code == PASSED, result.err
    (note,) = [note for note in result.json["notes"] if "worst operator" in note]
    assert str(folder / "run.py") in note
    alone = subprocess.run([sys.executable, folder / "run.py"], capture_output=True, text=True, check=True)
    assert "largest difference: 0 LSB" in alone.stdout


def test_a_used_folder_is_refused_before_any_work(small_bundle, tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    result = run(capsys, "verify", small_bundle, "--bisect", tmp_path)
    assert result.code == USAGE
    assert "--bisect" in result.err
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


def test_layers_of_unfolded_artifacts_are_skipped_with_the_reason(tmp_path):
    bundle = tmp_path / "bundle"
    export("resnet8", bundle, ExportOptions(weights="fashion-mnist", formats=("onnx",), fold=False))
    assert read_manifest(bundle).artifacts
    report = verify(bundle, VerifyOptions(layers=True))
    assert report.exit_code == PASSED
    (check,) = [check for check in report.checks if check.name == "operators"]
    assert check.verdict == "skipped"
    assert "folding" in check.sentence
    assert "--layers" not in failed_sqnr(bundle)


def failed_sqnr(bundle, **options) -> str:
    wanted = VerifyOptions(samples=16, min_sqnr=1000, **options)
    (check,) = [check for check in verify(bundle, wanted).checks if check.name == "sqnr"]
    assert check.verdict == "fail"
    return check.sentence


@pytest.mark.parametrize("layers", [False, True])
def test_layers_are_advised_until_they_are_compared(small_bundle, layers):
    sentence = failed_sqnr(small_bundle, artifacts=("*-int8.tflite",), layers=layers)
    assert ("--layers" in sentence) == (not layers)
