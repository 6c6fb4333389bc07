"""The quantizers of ``benchmarks.quantize``: each a process, where necessary in an environment of its own."""

from __future__ import annotations

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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One quantizer.

    Attributes:
        title: In the tables.
        environment: Suffix of its requirements file; empty where ours will do.
        fast: Whether it takes part in the comparison of time and memory on ResNet-50.
        asked: Only run when asked for by name.
        pixels: Whether its files take pixels 0 to 255 and normalize them inside, instead of model inputs.
    """

    title: str
    environment: str = ""
    fast: bool = True
    asked: bool = False
    pixels: bool = False


CONTENDERS = {
    "ours-tflite": Contender(title="resnet-edge, TFLite"),
    "ours-tflite-pixels": Contender(
        title="resnet-edge --fold-input, TFLite (takes pixels)", fast=False, pixels=True
    ),
    "tflite-converter": Contender(title="TFLiteConverter"),
    "litert-quantizer": Contender(title="litert-quantizer", environment="litert"),
    "ours-onnx": Contender(title="resnet-edge, ONNX"),
    "ours-onnx-pixels": Contender(
        title="resnet-edge --fold-input, ONNX (takes pixels)", fast=False, pixels=True
    ),
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


class WorkerFailedError(RuntimeError):
    """A worker did not do its work; the message has the end of what it said."""


def environment_python(name: str) -> Path:
    """The interpreter of an environment, made on first use."""
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


def run_worker(environment: str, arguments: list[str]) -> dict[str, Any]:
    """What a script prints as JSON on its last line, in a process of its own.

    Raises:
        WorkerFailedError: It ended otherwise.
    """
    finished = subprocess.run(
        [str(environment_python(environment)), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": f"{ROOT}:{ROOT / 'converters'}"},
        timeout=7200,
        check=False,
    )
    if finished.returncode != 0:
        raise WorkerFailedError(f"{' '.join(arguments)}: {finished.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def quantize_once(name: str, folder: Path, destination: Path, count: int) -> dict[str, Any]:
    """One quantization of the model in ``folder`` with so many calibration images; its figures.

    Raises:
        WorkerFailedError: The contender did not quantize the model.
    """
    worker = [str(HERE / "quantize_worker.py"), name, str(folder), str(destination), str(count)]
    return run_worker(CONTENDERS[name].environment, worker)


def quantize_all(names: list[str], folder: Path, count: int, repeats: int) -> dict[str, Cost]:
    """Every contender in turn, ``repeats`` times; one that fails is told and left out."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    # New, as a kept folder may see several runs.
    results = Path(tempfile.mkdtemp(prefix="results-", dir=folder))
    for repeat in range(repeats):
        for name in list(rows):
            try:
                rows[name].append(quantize_once(name, folder, results / f"{name}-{repeat}", count))
            except WorkerFailedError as error:
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
