"""Bundles to verify."""

from __future__ import annotations

import shutil

import pytest

from resnet_edge.pipeline import ExportOptions, QuantizeOptions, quantize


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory):
    """The shipped ResNet-8 in float32 and int8, as TFLite and ONNX; not to be changed."""
    bundle = tmp_path_factory.mktemp("small") / "bundle"
    quantize(
        "resnet8",
        bundle,
        QuantizeOptions(recipes=("int8",), samples=100, rounding="nearest"),
        ExportOptions(weights="fashion-mnist", formats=("tflite", "onnx")),
    )
    return bundle


@pytest.fixture
def own_bundle(small_bundle, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(small_bundle, tmp_path / "bundle")
