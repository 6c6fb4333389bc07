"""Peak memory of ``resnet-edge quantize`` with few and with many images, for ``benchmarks.quantize``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.quantize_contenders import quantize_once
from benchmarks.quantize_models import blurred_noise

CONTENDER = "ours-tflite"
COUNTS = (50, 1000)
HELD_BACK = 256
"""Images beyond those for calibration, so that the closing run has as many however many calibrate."""


def flatness_table(model: str, folder: Path) -> list[str]:
    """Time and peak memory with few and with many images of the same file."""
    lines = [f"| {model}, TFLite, calibrated on | s | peak MB |", "|---|---|---|"]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        shutil.copytree(folder / "bundle", place / "bundle")
        np.savez(place / "images.npz", images=blurred_noise(max(COUNTS) + HELD_BACK))
        for count in COUNTS:
            figures = quantize_once(CONTENDER, place, place / str(count), count)
            lines.append(f"| {count} images | {figures['seconds']:.1f} | {figures['peak_mb']:.0f} |")
    return lines
