"""``resnet-edge quantize`` against the other quantizers, in one run; prints the Markdown tables of README.

    python -m benchmarks.quantize [--models resnet8,resnet20] [--tables quantizers,openvino] [--repeats 3]

Every contender gets the same float weights and calibration images (``benchmarks.quantize_models``) and is a
process of its own (``benchmarks/quantize_worker.py``), in an environment of its own where its dependencies
clash with ours: made on first use from ``benchmarks/rivals-*.txt`` as ``.venv-rivals-*``. The files are then
judged alike (``benchmarks.quantize_measure``). Rivals on TFLite start from what TensorFlow makes of the Keras
model, with a fixed batch of 1; rivals on ONNX from our float export, which is folded already.

The tables of a model are ``quantizers``, all of the above; ``openvino``, the ``.onnx`` files of the same run
in that runtime; and for ResNet-50 ``flatness``, peak memory over the number of calibration images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.quantize_contenders import CONTENDERS, Cost, quantize_all
from benchmarks.quantize_flatness import flatness_table
from benchmarks.quantize_measure import OPENERS, Accuracy, accuracy, latencies, outputs_of
from benchmarks.quantize_models import CALIBRATION, MODELS, PIXEL_BUNDLE, SETS
from benchmarks.quantize_openvino import openvino_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

TABLES = ("quantizers", "openvino", "flatness")
TRAINED = tuple(name for name in MODELS if name != "resnet50")


def images_for(name: str, data: Mapping[str, NDArray[np.float32]], which: str) -> NDArray[np.float32]:
    """What a contender's files take: model inputs, or the pixels that these were made of."""
    return data[f"{which}_pixels"].astype(np.float32) if CONTENDERS[name].pixels else data[which]


def judged(folder: Path, costs: dict[str, Cost]) -> dict[str, dict[str, Accuracy]]:
    """Accuracy on both sets of images, by contender; the float model's own under ``float``."""
    data = np.load(folder / "evaluation.npz")
    labels = data["labels"]
    runs = {name: OPENERS[fmt](path) for name, cost in costs.items() for fmt, path in cost.files.items()}
    float_run = OPENERS["onnx"](folder / "float.onnx")
    rows: dict[str, dict[str, Accuracy]] = {name: {} for name in ("float", *runs)}
    for which in SETS:
        reference = outputs_of(float_run, data[which])
        rows["float"][which] = accuracy(reference, reference, labels)
        for name, run in runs.items():
            rows[name][which] = accuracy(reference, outputs_of(run, images_for(name, data, which)), labels)
    return rows


def speeds(folder: Path, costs: dict[str, Cost], seconds: float) -> dict[str, tuple[float, float]]:
    """(median milliseconds, median of the paired ratios ours / its) by contender, format by format."""
    image = np.load(folder / "calibration.npy")[0]
    pixels = np.load(folder / "images.npz")["images"][0].astype(np.float32)
    found: dict[str, tuple[float, float]] = {}
    for fmt, opener in OPENERS.items():
        files = {name: cost.files[fmt] for name, cost in costs.items() if list(cost.files) == [fmt]}
        if not files:
            continue
        runs = {
            name: partial(opener(path), pixels if CONTENDERS[name].pixels else image)
            for name, path in files.items()
        }
        times = latencies(runs, seconds)
        baseline = times.get(f"ours-{fmt}")
        for name, values in times.items():
            ratio = float("nan") if baseline is None else float(np.median(baseline / values))
            found[name] = (float(np.median(values)), ratio)
    return found


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def cost_cells(cost: Cost, speed: tuple[float, float] | None) -> list[str]:
    proof = f" (of which proof {cost.proof:.1f})" if cost.proof else ""
    size = sum(size_of(path) for path in cost.files.values())
    latency = f"{speed[0]:.3f} ({speed[1]:.3f})" if speed else "-"
    return [f"{cost.seconds:.1f}{proof}", f"{cost.peak:.0f}", f"{size / 1000:.0f}", latency]


def accuracy_cells(row: dict[str, Accuracy]) -> list[str]:
    return [
        *(f"{100 * row[which].top1:.2f}" for which in SETS),
        *(f"{100 * row[which].agreement:.2f}" for which in SETS),
        *(f"{row[which].sqnr:.1f}" for which in SETS),
    ]


def quantizers_table(model: str, folder: Path, costs: dict[str, Cost], seconds: float) -> list[str]:
    """What quantizing costs, and how good and fast the files are."""
    measured = judged(folder, costs) if model in TRAINED else {}
    speed = speeds(folder, costs, seconds)
    columns = ["s", "peak MB", "file kB", "ms (ours / this)"]
    if measured:
        sets = tuple(SETS.values())
        titles = ("top-1 %", "agreement %", "SQNR dB")
        columns = [f"{title}, {which}" for title in titles for which in sets] + columns
    lines = ["| " + " | ".join([model, *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    if measured:
        cells = accuracy_cells(measured["float"])
        lines.append("| " + " | ".join(["float", *cells[:2], *["-"] * (len(columns) - 2)]) + " |")
    for name, cost in costs.items():
        cells = accuracy_cells(measured[name]) if measured else []
        cells = [CONTENDERS[name].title, *cells, *cost_cells(cost, speed.get(name))]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def chosen(model: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """The contenders for a model."""
    if options.contenders:
        return [str(name) for name in options.contenders.split(",")]
    if model not in TRAINED:
        fast = [name for name, item in CONTENDERS.items() if item.fast]
        return sorted(fast, key=lambda name: not name.startswith("ours-"))
    asked = ["aimet-adaround"] if options.adaround else []
    pixels = (folder / PIXEL_BUNDLE).exists()
    return [name for name, item in CONTENDERS.items() if not item.asked and pixels >= item.pixels] + asked


def make_model(model: str, folder: Path) -> None:
    """The float files and images, unless a kept folder has them."""
    if folder.exists():
        return
    command = [sys.executable, "-m", "benchmarks.quantize_models", model, str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def report(model: str, folder: Path, options: argparse.Namespace) -> None:
    """Print the model's tables, each when it is ready."""
    tables = options.tables.split(",")
    if "quantizers" in tables or "openvino" in tables:
        costs = quantize_all(chosen(model, folder, options), folder, CALIBRATION[model], options.repeats)
        if "quantizers" in tables:
            show(quantizers_table(model, folder, costs, options.seconds))
        if "openvino" in tables:
            show(openvino_table(model, folder, costs, options.seconds))
    if "flatness" in tables and model == "resnet50":
        show(flatness_table(model, folder))


def show(lines: list[str]) -> None:
    print("\n".join(lines), end="\n\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--tables", default=",".join(TABLES), help="which of them to make")
    parser.add_argument("--contenders", default="", help=", ".join(CONTENDERS))
    parser.add_argument("--adaround", action="store_true", help="half an hour a model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of latency measurement a format")
    parser.add_argument("--keep", type=Path, help="folder for all files, whose float models are used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        for model in options.models.split(","):
            folder = place / model
            make_model(model, folder)
            report(model, folder, options)


if __name__ == "__main__":
    main()
