"""``resnet-edge finetune`` end to end: what the new bundle holds, and what quantize makes of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from resnet_edge import bundle as bundles
from resnet_edge.contents import load_folded
from resnet_edge.converters import load_converter
from resnet_edge.graph.operators import Conv2D, Dense
from resnet_edge.inspection.files import inspect_file
from resnet_edge.manifest import read_manifest
from resnet_edge.pipeline import VerifyOptions, verify
from resnet_edge.quantization.integer import run_integer
from resnet_edge.quantization.storage import load_quantized
from tests.command_line import run

USAGE = 2
SPARSITY, CLUSTERS = 0.5, 16


def finetuned(tmp_path_factory, base, few, name, *arguments):
    """The bundle that a fine-tuning makes, in one short epoch."""
    from resnet_edge.finetuning.options import FinetuneOptions
    from resnet_edge.pipeline import finetune

    bundle = tmp_path_factory.mktemp(name) / "bundle"
    options = FinetuneOptions(data=str(few), epochs=1, batch=32, learning_rate=1e-4, **dict(arguments))
    return finetune(base, bundle, options).bundle


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base, few):
    return finetuned(tmp_path_factory, base, few, "trained", ("method", "qat"))


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, base, few):
    return finetuned(tmp_path_factory, base, few, "pruned", ("method", "prune"), ("sparsity", SPARSITY))


@pytest.fixture(scope="module")
def clustered(tmp_path_factory, base, few):
    return finetuned(tmp_path_factory, base, few, "clustered", ("method", "cluster"), ("clusters", CLUSTERS))


def kernels(bundle):
    graph = load_folded(bundle, read_manifest(bundle))
    return {node.name: node.op.weight for node in graph.nodes if isinstance(node.op, Conv2D | Dense)}


def integers(bundle, recipe="int8"):
    manifest = read_manifest(bundle)
    record = next(record for record in manifest.artifacts if record.precision == recipe)
    folded = load_folded(bundle, manifest)
    return load_quantized(bundle / record.spec, bundle / record.integers, folded)


def test_everything_in_the_new_bundle_is_as_recorded(trained, pruned, clustered, base):
    original = {record.format: record.sha256 for record in read_manifest(base).reference}
    for bundle in (trained, pruned, clustered):
        manifest = read_manifest(bundle)
        for reference in manifest.reference:
            assert bundles.digest(bundle / reference.path) == reference.sha256
        for record in manifest.artifacts:
            assert bundles.digest(bundle / record.path) == record.sha256
        kept = {each.format: each.sha256 for each in manifest.reference if each.format in original}
        assert kept == original
        assert manifest.held_back is not None
        assert manifest.held_back.images == 32
        assert not [path for path in bundle.parent.iterdir() if path.name.startswith(".")]
    manifest = read_manifest(base)
    for (
        record
    ) in manifest.artifacts:  # files are shared between bundles, so the old one must not have changed
        assert bundles.digest(base / record.path) == record.sha256


def test_quantization_aware_training_replaces_the_recipes_artifacts(trained, base):
    before, after = read_manifest(base), read_manifest(trained)
    assert [record.path for record in after.artifacts] == [record.path for record in before.artifacts]
    (record,) = after.finetuned
    assert (record.method, record.recipe, record.images, record.validation_images) == ("qat", "int8", 288, 32)
    assert record.labelled
    assert record.best_epoch == record.epochs == 1
    assert record.same_prediction == 1.0
    assert record.within_a_step is not None
    assert record.within_a_step > 0.99  # ties aside
    start, end = integers(base), integers(trained)
    assert any(not np.array_equal(start.constants[name], end.constants[name]) for name in start.constants)
    assert start.spec.digest != end.spec.digest


def test_the_files_compute_what_was_trained(trained):
    quantized = integers(trained)
    images = np.concatenate(list(_shipped_test(trained).batches(0, 100)))
    exact = run_integer(quantized, images)
    step = quantized.spec.tensors[quantized.graph.output].scale
    for record in read_manifest(trained).artifacts:
        if record.precision == "int8":
            with load_converter(record.format).open(trained / record.path, threads=1) as engine:
                outputs = engine.run(images)
            # Kernels round ties of their own: seldom, by one step of an inner tensor.
            assert (outputs.argmax(1) == exact.argmax(1)).mean() >= 0.99
            assert (np.abs(outputs - exact) <= 1.5 * step).mean() >= 0.99


def _shipped_test(bundle):
    from resnet_edge.contents import artifact_contract
    from resnet_edge.data.datasets import open_dataset

    return open_dataset("fashion-mnist", artifact_contract(read_manifest(bundle)), split="test")


def looked_into(path):
    """What ``inspect`` says of a file's weights, and how much smaller gzip makes it."""
    report = inspect_file(path)
    assert report.weights is not None
    assert report.gzip_size is not None
    return report.weights, report.size / report.gzip_size


def test_pruned_weights_are_zero_in_every_file(pruned):
    for name, kernel in kernels(pruned).items():
        assert np.mean(kernel == 0) == pytest.approx(SPARSITY, abs=1 / kernel.size), name
    for suffix in ("tflite", "onnx"):
        weights, smaller = looked_into(pruned / f"resnet8-fp32.{suffix}")
        total = sum(figures.size for figures in weights)
        assert sum(figures.zeros for figures in weights) / total == pytest.approx(SPARSITY, abs=1e-3)
        assert smaller > 1.5
    (record,) = read_manifest(pruned).finetuned
    assert record.sparsity == SPARSITY
    assert set(record.layers) == set(kernels(pruned))


def test_quantization_aware_training_keeps_the_types_of_the_files(base, few, tmp_path, capsys):
    types = ("--io", "int8", "--onnx-activations", "int8", "--format", "onnx")
    signed = tmp_path / "signed"
    arguments = ("--recipe", "int8", "--samples", 4, "--rounding", "nearest", *types)
    assert run(capsys, "quantize", base, *arguments, "-o", signed).code == 0
    method = ("--method", "qat", "--data", few, "--epochs", 1)
    result = run(capsys, "finetune", signed, *method, "-o", tmp_path / "tuned")
    assert result.code == 0, result.err
    report = inspect_file(tmp_path / "tuned" / "resnet8-int8.onnx")
    assert {tensor.dtype for tensor in (*report.inputs, *report.outputs)} == {"int8"}
    assert any("int8 features" in note for note in report.notes)


def test_clustered_weights_have_few_values_in_every_file(clustered):
    found = {name: len(np.unique(kernel)) for name, kernel in kernels(clustered).items()}
    first, *inner, last = found
    assert all(found[name] <= CLUSTERS for name in inner)
    assert min(found[first], found[last]) > CLUSTERS
    for suffix in ("tflite", "onnx"):
        weights, smaller = looked_into(clustered / f"resnet8-fp32.{suffix}")
        assert sum(figures.distinct <= CLUSTERS for figures in weights) == len(inner)
        assert smaller > 3


def test_zeros_stay_zeros_when_quantized(pruned, tmp_path, capsys):
    bundle = shutil.copytree(pruned, tmp_path / "bundle")
    recipes = ("--recipe", "int8", "--recipe", "int8-per-tensor")
    result = run(capsys, "quantize", bundle, *recipes, "--rounding", "learned", "--format", "tflite")
    assert result.code == 0, result.err
    zeros = {name: kernel == 0 for name, kernel in kernels(bundle).items()}
    for recipe in ("int8", "int8-per-tensor"):
        constants = integers(bundle, recipe).constants
        for name, zero in zeros.items():
            assert not constants[f"{name}/weight"][zero].any()


def test_quantization_aware_training_keeps_the_zeros_of_pruning(pruned, few, tmp_path, capsys):
    bundle = shutil.copytree(pruned, tmp_path / "bundle")
    assert run(capsys, "quantize", bundle, "--recipe", "int8", "--format", "tflite").code == 0
    method = ("--method", "qat", "--data", few, "--epochs", 1, "--learning-rate", 1e-3)
    result = run(capsys, "finetune", bundle, *method, "-o", tmp_path / "both")
    assert result.code == 0, result.err
    constants = integers(tmp_path / "both").constants
    for name, kernel in kernels(bundle).items():
        assert not constants[f"{name}/weight"][kernel == 0].any()
    assert [record.method for record in read_manifest(tmp_path / "both").finetuned] == ["prune", "qat"]


def test_clusters_stay_when_quantized(clustered, tmp_path, capsys):
    bundle = shutil.copytree(clustered, tmp_path / "bundle")
    result = run(capsys, "quantize", bundle, "--recipe", "int8", "--format", "tflite")
    assert result.code == 0, result.err
    (record,) = read_manifest(bundle).finetuned
    constants = integers(bundle).constants
    for name in record.layers:
        columns = constants[f"{name}/weight"].reshape(-1, constants[f"{name}/bias"].size).T
        assert max(len(np.unique(column)) for column in columns) <= CLUSTERS


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--recipe", "int8", "--rounding", "learned"), "learned rounding"),
        (("--recipe", "int8-per-tensor"), "balances channels"),
    ],
)
def test_what_would_undo_clusters_is_refused(clustered, capsys, arguments, found):
    result = run(capsys, "quantize", clustered, *arguments)
    assert result.code == USAGE
    assert "clustered, and would not stay so" in result.err
    assert found in result.err


def test_a_clustered_bundle_is_not_trained_again(clustered, few, tmp_path, capsys):
    arguments = ("--method", "prune", "--sparsity", 0.5, "--data", few, "--epochs", 1)
    result = run(capsys, "finetune", clustered, *arguments, "-o", tmp_path / "again")
    assert result.code == USAGE
    assert "clustered" in result.err


def test_quantizing_again_forgets_the_training(trained, tmp_path, capsys):
    bundle = shutil.copytree(trained, tmp_path / "bundle")
    assert run(capsys, "quantize", bundle, "--recipe", "int8", "--samples", 50).code == 0
    assert read_manifest(bundle).finetuned == ()


def test_verify_measures_against_the_original_float_model(clustered, trained):
    report = verify(clustered, VerifyOptions(artifacts=("*.tflite",)))
    (result,) = report.artifacts
    assert result.parity is not None
    assert report.exit_code == 0  # far from the original by intent
    assert result.parity.max_abs_error > 0.01
    assert verify(trained, VerifyOptions(artifacts=("*int8*",))).exit_code == 0


def test_one_json_document(base, few, tmp_path, capsys):
    arguments = ("--method", "prune", "--sparsity", 0.5, "--layers", "layer3*", "--data", few, "--epochs", 1)
    result = run(capsys, "finetune", base, *arguments, "-o", tmp_path / "bundle", "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    (record,) = document["manifest"]["finetuned"]
    assert record["layers"]
    assert all(name.startswith("layer3") for name in record["layers"])
    assert document["manifest"]["command"][1] == "finetune"


def test_the_terminal_says_what_training_has_come_to(base, few, tmp_path, capsys):
    arguments = (
        "--method",
        "cluster",
        "--clusters",
        32,
        "--data",
        few,
        "--epochs",
        1,
        "--flip",
        "--shift",
        1,
    )
    result = run(capsys, "finetune", base, *arguments, "-o", tmp_path / "bundle")
    assert result.code == 0, result.err
    assert "validation accuracy: " in result.out
    assert "no faster" in result.out
