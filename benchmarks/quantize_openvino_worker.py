"""``.onnx`` files in OpenVINO and in ONNX Runtime, in one process; prints figures by file as JSON.

    python -m benchmarks.quantize_openvino_worker FOLDER SECONDS BASELINE NAME=FILE...

FOLDER is what ``benchmarks.quantize_models`` left. It runs in an environment that has both runtimes, NumPy
and nothing else. All files in both runtimes take turns, so that every ratio is of runs that followed each
other. BASELINE is the file that the others' times in OpenVINO are compared with.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks.quantize_measure import agreement, latencies, open_onnx, outputs_of, sqnr
from benchmarks.quantize_models import SETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from benchmarks.quantize_measure import Run

Key: TypeAlias = tuple[str, str]
"""A file's name and a runtime."""


def open_openvino(path: Path) -> Run:
    """One thread and one stream.

    What a file leaves in float stays float32, as in ONNX Runtime: on processors that know bfloat16, OpenVINO
    would take that.

    Raises:
        RuntimeError: OpenVINO does not take the file.
    """
    import openvino  # type: ignore[import-not-found]

    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        outputs: NDArray[np.float32] = request.infer([feed])[0][0]
        return outputs

    return run


def evaluation_images(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Model inputs by the title of their set; of a model without evaluation images the calibration images."""
    path = folder / "evaluation.npz"
    if not path.exists():
        return {"calibration images": np.load(folder / "calibration.npy")}
    data = np.load(path)
    return {title: data[which] for which, title in SETS.items()}


def speed(name: str, baseline: str, times: Mapping[Key, NDArray[np.float64]]) -> dict[str, float]:
    """Medians in milliseconds, and medians of paired ratios."""
    fast, usual = times[name, "openvino"], times[name, "onnxruntime"]
    ours = times.get((baseline, "openvino"))
    return {
        "openvino": float(np.median(fast)),
        "onnxruntime": float(np.median(usual)),
        "ratio": float(np.median(fast / usual)),
        "against_ours": float("nan") if ours is None else float(np.median(ours / fast)),
    }


def main() -> None:
    folder, seconds, baseline = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[Key, Run] = {}
    for argument in sys.argv[4:]:
        name, path = argument.split("=", 1)
        try:
            runs[name, "openvino"] = open_openvino(Path(path))
        except RuntimeError as error:
            rows[name] = {"error": str(error)[-500:]}
        else:
            rows[name] = {}
            runs[name, "onnxruntime"] = open_onnx(Path(path))
    sets, image = evaluation_images(folder), np.load(folder / "calibration.npy")[0]
    times = latencies({key: partial(run, image) for key, run in runs.items()}, seconds)
    opened = {name: row for name, row in rows.items() if not row}
    for name, row in opened.items():
        row.update(speed(name, baseline, times), agreement={}, sqnr={})
    float_run = open_onnx(folder / "float.onnx")
    for title, images in sets.items():
        reference = outputs_of(float_run, images)
        for name, row in opened.items():
            usual, outputs = (outputs_of(runs[name, which], images) for which in ("onnxruntime", "openvino"))
            row["agreement"][title] = agreement(usual, outputs)
            row["sqnr"][title] = sqnr(reference, outputs)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
