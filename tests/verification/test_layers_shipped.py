"""The layers of the shipped ResNet-8, trained and calibrated: what a user of a bundle sees."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.pipeline import ExportOptions, QuantizeOptions, VerifyOptions, quantize
from resnet_edge.verification.images import open_images
from resnet_edge.verification.layers import IMAGES, compare_layers
from resnet_edge.verification.tampering import edit_constant, edit_scale
from resnet_edge.verification.target import BundleTarget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.layer import Layers

FORMATS = ("tflite", "onnx")


class Shipped:
    """A bundle of the shipped model."""

    def __init__(self, folder: Path) -> None:
        self.target = BundleTarget(folder, ())
        dataset = open_images(self.target, VerifyOptions()).dataset
        self.images: NDArray[np.float32] = next(iter(dataset.batches(0, IMAGES, IMAGES)))

    def artifact(self, format_: str, precision: str) -> tuple[Path, Quantized]:
        """One of its artifacts, and what that was written from."""
        (candidate,) = (
            each for each in self.target.candidates if (each.format, each.precision) == (format_, precision)
        )
        quantized = self.target.quantized(candidate)
        assert quantized is not None
        return candidate.path, quantized


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    folder = tmp_path_factory.mktemp("shipped") / "bundle"
    options = QuantizeOptions(recipes=("int8", "int8-per-tensor", "fp16"), samples=64)
    exported = ExportOptions(weights="fashion-mnist", formats=FORMATS)
    return Shipped(quantize("resnet8", folder, options, exported).bundle)


def compare(path: Path, quantized: Quantized, shipped: Shipped) -> Layers:
    return compare_layers(path, path.suffix[1:], quantized, shipped.images)


@pytest.mark.parametrize(
    ("format_", "precision"), list(product(FORMATS, ["fp32", "fp16", "int8", "int8-per-tensor"]))
)
def test_a_healthy_artifact_has_no_kernel_bug_and_no_unusual_layer(
    format_: str, precision: str, shipped: Shipped
) -> None:
    layers = compare(*shipped.artifact(format_, precision), shipped)
    assert layers.wrong == ()
    assert layers.first == ""
    assert layers.sentence.startswith("no kernel bug")
    allowed = {"exact", "within 1 LSB"} if precision.startswith("int8") else {"rounding"}
    assert {layer.verdict for layer in layers.layers} <= allowed
    # Eight bits leave 33 dB and more to each layer; less is another layer's error in it.
    own = [layer.alone_db for layer in layers.layers if layer.alone_db is not None]
    assert min(own) > 30


@pytest.mark.parametrize("format_", FORMATS)
def test_the_tensors_are_those_of_the_file_as_shipped(format_: str, shipped: Shipped) -> None:
    """Integer operators fuse as before where their tensors are wanted: the outputs are the same bits."""
    layers = compare(*shipped.artifact(format_, "int8"), shipped)
    assert "tensors in sight" not in layers.sentence


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", ["layer1.0.conv1", "layer3.0.conv2"])
def test_a_scale_edited_by_hand_is_named(format_: str, name: str, shipped: Shipped, tmp_path: Path) -> None:
    path, quantized = shipped.artifact(format_, "int8")
    edited = Path(shutil.copy(path, tmp_path / path.name))
    edit_scale(edited, name, 1.1)
    layers = compare(edited, quantized, shipped)
    assert layers.first == name
    assert f"the file differs from its spec: {name}" in layers.sentence


@pytest.mark.parametrize("format_", FORMATS)
def test_a_clipped_bias_is_named(format_: str, shipped: Shipped, tmp_path: Path) -> None:
    path, quantized = shipped.artifact(format_, "int8")
    edited = Path(shutil.copy(path, tmp_path / path.name))
    edit_constant(edited, "layer2.0.conv1", "bias", lambda bias: np.clip(bias, -500, 500))
    assert compare(edited, quantized, shipped).wrong == ("layer2.0.conv1",)


def test_a_wrong_zero_point_is_named(shipped: Shipped) -> None:
    """The other way round: the file is right and its spec is off by one, which is a step for each element."""
    path, quantized = shipped.artifact("tflite", "int8")
    spec, name = quantized.spec, "layer2.0.conv2"
    quant = spec.tensors[name]
    tensors = {**spec.tensors, name: replace(quant, zero_point=quant.zero_point + 1)}
    off = replace(quantized, spec=replace(spec, tensors=tensors))
    layers = compare(path, off, shipped)
    assert layers.first == name
