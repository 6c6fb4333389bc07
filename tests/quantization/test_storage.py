"""Integers beside their spec: what is loaded is what was saved."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from resnet_edge.contents import fold, load_imported
from resnet_edge.data.datasets import open_dataset
from resnet_edge.data.held_back import calibrated_hashes
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.errors import ModelRejectedError
from resnet_edge.manifest import read_manifest
from resnet_edge.pipeline import ExportOptions, QuantizeOptions, quantize
from resnet_edge.quantization.readback import check
from resnet_edge.quantization.storage import load_quantized
from resnet_edge_converters.tflite import TFLiteConverter

RECIPES = ("int8", "int8-per-tensor", "int16x8", "int8-weights", "fp16")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("storage") / "bundle"
    options = QuantizeOptions(recipes=RECIPES, samples=100)
    export_options = ExportOptions(weights="fashion-mnist", formats=("tflite",))
    quantize("resnet8", bundle, options, export_options)
    return bundle


@pytest.mark.parametrize("recipe", RECIPES)
def test_files_hold_the_integers_that_the_bundle_keeps(made, recipe):
    manifest = read_manifest(made)
    folded = fold(load_imported(made, manifest), manifest)
    record = next(record for record in manifest.artifacts if record.precision == recipe)
    quantized = load_quantized(made / record.spec, made / record.integers, folded)
    assert quantized.constants
    path = made / record.path
    check(TFLiteConverter().read_back(path, quantized), quantized, where=path.name)


def test_an_equalized_graph_comes_back(made):
    manifest = read_manifest(made)
    folded = fold(load_imported(made, manifest), manifest)
    record = next(record for record in manifest.artifacts if record.precision == "int8-per-tensor")
    graph = load_quantized(made / record.spec, made / record.integers, folded).graph
    changed = [
        node.name
        for node in graph.nodes
        for role, weight in node.op.weights().items()
        if not np.array_equal(weight, folded.by_name[node.name].op.weights()[role])
    ]
    assert changed


def test_a_truncated_file_is_refused(made, tmp_path):
    bundle = shutil.copytree(made, tmp_path / "bundle")
    manifest = read_manifest(bundle)
    folded = fold(load_imported(bundle, manifest), manifest)
    record = next(record for record in manifest.artifacts if record.precision == "int8")
    integers = bundle / record.integers
    integers.write_bytes(integers.read_bytes()[:1000])
    with pytest.raises(ModelRejectedError, match="cannot be read"):
        load_quantized(bundle / record.spec, integers, folded)


def test_images_behind_the_calibrated_ones_are_held_back(made):
    record = read_manifest(made).held_back
    assert record is not None
    contract = Preprocessing.from_json(read_manifest(made).preprocessing)
    source, kept = open_dataset("fashion-mnist", contract), open_dataset(str(made / record.path), contract)
    assert record.images == len(kept) == 256
    assert kept.image_hashes() == source.image_hashes(100, 356)
    assert kept.labels is not None
    assert source.labels is not None
    assert np.array_equal(kept.labels, source.labels[100:356])
    assert calibrated_hashes(made / record.path) == set(source.image_hashes(0, 100))
