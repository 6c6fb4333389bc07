"""A quantized bundle of the shipped model, and a few labelled images to train it on."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_edge.data import shipped
from resnet_edge.pipeline import ExportOptions, QuantizeOptions, quantize

IMAGES = 320


@pytest.fixture(scope="package")
def base(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("finetuned") / "base"
    quantize(
        "resnet8",
        bundle,
        # Ranges from four images leave something to learn.
        QuantizeOptions(recipes=("int8",), samples=4, observer="entropy"),
        ExportOptions(weights="fashion-mnist", formats=("tflite", "onnx")),
    )
    return bundle


@pytest.fixture(scope="package")
def few(tmp_path_factory):
    """Training images with labels."""
    path = tmp_path_factory.mktemp("data") / "few.npz"
    with np.load(shipped.dataset("fashion-mnist").calibration) as file:
        np.savez(path, images=file["images"][-IMAGES:], labels=file["labels"][-IMAGES:])
    return path
