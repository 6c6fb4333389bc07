"""The ``.onnx`` files of ``benchmarks.quantize`` in OpenVINO: how fast, and how alike the outputs are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.quantize_contenders import CONTENDERS, WorkerFailedError, run_worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.quantize_contenders import Cost

BASELINE = "ours-onnx"


def openvino_table(model: str, folder: Path, costs: dict[str, Cost], seconds: float) -> list[str]:
    """The model's table; a file that OpenVINO does not take is told and left out.

    Files that take pixels are left out: the worker has model inputs only.
    """
    files = {
        name: cost.files["onnx"]
        for name, cost in costs.items()
        if list(cost.files) == ["onnx"] and not CONTENDERS[name].pixels
    }
    if not files:
        return []
    named = [f"{name}={path}" for name, path in files.items()]
    worker = ["-m", "benchmarks.quantize_openvino_worker", str(folder), str(seconds), BASELINE, *named]
    try:
        rows = run_worker("openvino", worker)
    except WorkerFailedError as error:
        print(error, file=sys.stderr)
        return []
    for name in list(rows):
        if "error" in rows[name]:
            print(f"{name} in OpenVINO: {rows.pop(name)['error']}", file=sys.stderr)
    if not rows:
        return []
    sets = list(next(iter(rows.values()))["agreement"])
    columns = [
        f"{model}, the .onnx in OpenVINO",
        "ms in OpenVINO (ours / this)",
        "ms in ONNX Runtime",
        "OpenVINO / ONNX Runtime",
    ]
    columns += [f"same top-1 in both %, {title}" for title in sets]
    columns += [f"SQNR dB in OpenVINO, {title}" for title in sets]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(cells(name, row)) + " |" for name, row in rows.items()]


def cells(name: str, row: Mapping[str, Any]) -> list[str]:
    return [
        CONTENDERS[name].title,
        f"{row['openvino']:.3f} ({row['against_ours']:.3f})",
        f"{row['onnxruntime']:.3f}",
        f"{row['ratio']:.3f}",
        *(f"{100 * share:.2f}" for share in row["agreement"].values()),
        *(f"{decibels:.1f}" for decibels in row["sqnr"].values()),
    ]
