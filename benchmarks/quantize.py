"""``resnet-edge quantize`` against the other quantizers, in one run; prints the Markdown tables of README.

    python -m benchmarks.quantize [--models resnet8,resnet20] [--repeats 3] [--adaround]

Every contender gets the same float weights and calibration images (``benchmarks.quantize_models``) and is a
process of its own (``benchmarks/quantize_worker.py``), in an environment of its own where its dependencies
clash with ours: made on first use from ``benchmarks/rivals-*.txt`` as ``.venv-rivals-*``. The files are then
judged alike (``benchmarks.quantize_measure``). Rivals on TFLite start from what TensorFlow makes of the Keras
model, with a fixed batch of 1; rivals on ONNX from our float export, which is folded already.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.quantize_measure import OPENERS, Accuracy, accuracy, latencies, outputs_of
from benchmarks.quantize_models import CALIBRATION, MODELS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SETS = {"clean": "clean", "jpeg": "JPEG 30"}
TRAINED = tuple(name for name in MODELS if name != "resnet50")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One quantizer.

    Attributes:
        title: In the tables.
        environment: Suffix of its requirements file; empty where ours will do.
        fast: Whether it takes part in the comparison of time and memory on ResNet-50.
        asked: Only run when asked for by name.
    """

    title: str
    environment: str = ""
    fast: bool = True
    asked: bool = False


CONTENDERS = {
    "ours-tflite": Contender(title="resnet-edge, TFLite"),
    "tflite-converter": Contender(title="TFLiteConverter"),
    "litert-quantizer": Contender(title="litert-quantizer", environment="litert"),
    "ours-onnx": Contender(title="resnet-edge, ONNX"),
    "ort-minmax": Contender(title="quantize_static, MinMax"),
    "ort-percentile": Contender(title="quantize_static, Percentile", fast=False),
    "nncf": Contender(title="NNCF", environment="nncf", fast=False),
    "aimet-minmax": Contender(title="AIMET-ONNX, min-max", environment="aimet", fast=False),
    "aimet-tf-enhanced": Contender(title="AIMET-ONNX, TF-enhanced", environment="aimet", fast=False),
    "aimet-adaround": Contender(title="AIMET-ONNX, AdaRound", environment="aimet", fast=False, asked=True),
    "ours-savedmodel": Contender(title="resnet-edge, SavedModel", asked=True),
    "ours-all": Contender(title="resnet-edge, all three", asked=True),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Medians over the repeats of one contender: seconds, megabytes, and the files of the last run."""

    seconds: float
    proof: float
    peak: float
    files: dict[str, Path]


class ContenderFailedError(RuntimeError):
    """A contender did not quantize the model."""


def environment_python(name: str) -> Path:
    """The interpreter of a contender's environment, made on first use."""
    if not name:
        return Path(sys.executable)
    folder, requirements = ROOT / f".venv-rivals-{name}", HERE / f"rivals-{name}.txt"
    python = folder / "bin" / "python"
    mark, wanted = folder / "installed", requirements.read_text(encoding="utf-8")
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        print(f"making {folder.name}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
        mark.write_text(wanted, encoding="utf-8")
    return python


def run_worker(name: str, model: str, folder: Path, destination: Path) -> dict[str, Any]:
    """One quantization in a process of its own; its figures.

    Raises:
        ContenderFailedError: With the end of what it said.
    """
    python = environment_python(CONTENDERS[name].environment)
    worker = [str(python), str(HERE / "quantize_worker.py")]
    finished = subprocess.run(
        [*worker, name, str(folder), str(destination), str(CALIBRATION[model])],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": f"{ROOT}:{ROOT / 'converters'}"},
        timeout=7200,
        check=False,
    )
    if finished.returncode != 0:
        raise ContenderFailedError(f"{name} on {model}: {finished.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def quantize_all(model: str, names: list[str], folder: Path, repeats: int) -> dict[str, Cost]:
    """Every contender in turn, ``repeats`` times; one that fails is told and left out."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    # New, as a kept folder may see several runs.
    results = Path(tempfile.mkdtemp(prefix="results-", dir=folder))
    for repeat in range(repeats):
        for name in list(rows):
            try:
                rows[name].append(run_worker(name, model, folder, results / f"{name}-{repeat}"))
            except ContenderFailedError as error:
                print(error, file=sys.stderr)
                del rows[name]
    return {
        name: Cost(
            seconds=median(figures["seconds"] for figures in row),
            proof=median(figures["proof"] for figures in row),
            peak=median(figures["peak_mb"] for figures in row),
            files={fmt: Path(path) for fmt, path in row[-1]["files"].items()},
        )
        for name, row in rows.items()
    }


def judged(folder: Path, costs: dict[str, Cost]) -> dict[str, dict[str, Accuracy]]:
    """Accuracy on both sets of images, by contender; the float model's own under ``float``."""
    data = np.load(folder / "evaluation.npz")
    labels = data["labels"]
    runs = {name: OPENERS[fmt](path) for name, cost in costs.items() for fmt, path in cost.files.items()}
    runs = {"float": OPENERS["onnx"](folder / "float.onnx"), **runs}
    rows: dict[str, dict[str, Accuracy]] = {name: {} for name in runs}
    for which in SETS:
        images = data[which]
        reference = outputs_of(runs["float"], images)
        for name, run in runs.items():
            rows[name][which] = accuracy(reference, outputs_of(run, images), labels)
    return rows


def speeds(folder: Path, costs: dict[str, Cost], seconds: float) -> dict[str, tuple[float, float]]:
    """(median milliseconds, median of the paired ratios ours / its) by contender, format by format."""
    image = np.load(folder / "calibration.npy")[0]
    found: dict[str, tuple[float, float]] = {}
    for fmt, opener in OPENERS.items():
        files = {name: cost.files[fmt] for name, cost in costs.items() if list(cost.files) == [fmt]}
        if not files:
            continue
        times = latencies({name: opener(path) for name, path in files.items()}, image, seconds)
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


def report(model: str, folder: Path, costs: dict[str, Cost], seconds: float) -> list[str]:
    """The model's table."""
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


def chosen(model: str, options: argparse.Namespace) -> list[str]:
    """The contenders for a model."""
    if options.contenders:
        return [str(name) for name in options.contenders.split(",")]
    if model not in TRAINED:
        ours = [name for name in CONTENDERS if name.startswith("ours-")]
        return ours + [name for name, item in CONTENDERS.items() if item.fast and name not in ours]
    asked = ["aimet-adaround"] if options.adaround else []
    return [name for name, item in CONTENDERS.items() if not item.asked] + asked


def make_model(model: str, folder: Path) -> None:
    """The float files and images, unless a kept folder has them."""
    if folder.exists():
        return
    command = [sys.executable, "-m", "benchmarks.quantize_models", model, str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
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
            costs = quantize_all(model, chosen(model, options), folder, options.repeats)
            print("\n".join(report(model, folder, costs, options.seconds)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
