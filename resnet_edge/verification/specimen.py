"""A small healthy bundle to injure: the shipped ResNet-8 taught to see colour, in float32 and int8.

Its first convolution takes a picture's brightness, in the proportions in which the eye sees red, green and
blue, and the images are tinted. So a colour mistake has a colour to mistake, and the network is a trained
one, with batch norms worth folding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.data import shipped
from resnet_edge.exporting import load_framework
from resnet_edge.pipeline import ExportOptions, QuantizeOptions, quantize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.stages import Stages

_LUMA = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue: ITU-R BT.601."""

_CALIBRATION, _IMAGES = 120, 200
"""Images to calibrate on, and images in all: the rest is held back, and verified on."""

NAME = "specimen"

FLOAT_TFLITE, FLOAT_ONNX = f"{NAME}-fp32.tflite", f"{NAME}-fp32.onnx"
INT8_TFLITE, INT8_ONNX = f"{NAME}-int8.tflite", f"{NAME}-int8.onnx"
BOTH = (INT8_TFLITE, INT8_ONNX)
SPEC, INTEGERS = f"{NAME}-int8.spec.json", f"{NAME}-int8.integers.safetensors"
"""The files of the bundle."""


def build_specimen(folder: Path, stages: Stages) -> Path:
    """Write the bundle, which takes a few seconds.

    Args:
        folder: Where it goes, together with the images.
        stages: Times the work.

    Returns:
        The bundle.
    """
    data, labels = folder / "images.npz", folder / "labels.txt"
    _write_images(data)
    labels.write_text("\n".join(shipped.FASHION_MNIST_LABELS) + "\n", encoding="utf-8")
    bundle = folder / "healthy"
    quantize(
        _colour_model(),
        bundle,
        QuantizeOptions(recipes=("int8",), calibration=str(data), samples=_CALIBRATION, rounding="nearest"),
        ExportOptions(formats=("tflite", "onnx"), preprocess="unit", labels=labels),
        stages,
    )
    return bundle


def _colour_model() -> Any:
    """The shipped ResNet-8 with a first convolution for three channels."""
    load_framework()
    from resnet_edge.models.build import build_model
    from resnet_edge.models.registry import find_model
    from resnet_edge.models.source import open_source

    grey = open_source("resnet8", ExportOptions(weights="fashion-mnist")).model
    height, width, _ = grey.input_shape[1:]
    colour = build_model(
        find_model("resnet8"),
        input_shape=(height, width, len(_LUMA)),
        classes=grey.output_shape[1],
        seed=None,
    )
    first, *others = grey.get_weights()  # (3, 3, 1, 16): the others have the same shapes in both
    colour.set_weights([first * np.array(_LUMA, np.float32)[:, None], *others])
    colour.name = NAME
    return colour


def _write_images(path: Path) -> None:
    """Shipped images, each in a seeded tint."""
    with np.load(shipped.dataset("fashion-mnist").calibration) as arrays:
        grey, labels = arrays["images"][:_IMAGES], arrays["labels"][:_IMAGES]
    tints: NDArray[np.float64] = np.random.default_rng(0).uniform(0.2, 1.0, (len(grey), 1, 1, len(_LUMA)))
    tints /= tints.max(axis=3, keepdims=True)
    np.savez(path, images=np.rint(grey * tints).astype(np.uint8), labels=labels)
