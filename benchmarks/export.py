"""Export against the usual ways, in one run, alternating; prints the Markdown table that README shows.

    python -m benchmarks.export [--models resnet8,resnet50,resnet152] [--repeats 3]

Each measurement is a process of its own (``benchmarks.export_worker``): load the same ``.keras`` file, export
it, exit. Then both files of a format run in the format's own runtime, one after the other, many times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

FORMATS = ("tflite", "onnx", "savedmodel")
RIVALS = {"tflite": "TFLiteConverter", "onnx": "model.export(format='onnx')", "savedmodel": "model.export"}
CONTENDERS = ("ours", "rival")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Medians over the repeats of one contender."""

    export: float
    proof: float
    process: float
    peak: float
    size: int
    artifact: Path


def quiet_environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def run_worker(contender: str, fmt: str, model: Path, folder: Path) -> dict[str, Any]:
    """One export in a process of its own; its figures and the whole process' seconds."""
    command = [sys.executable, "-m", "benchmarks.export_worker", contender, fmt, str(model), str(folder)]
    began = time.perf_counter()
    finished = subprocess.run(
        command, check=True, capture_output=True, text=True, env=quiet_environment(), timeout=1800
    )
    seconds = time.perf_counter() - began
    return {**json.loads(finished.stdout.splitlines()[-1]), "process": seconds}


def measure(fmt: str, model: Path, folder: Path, repeats: int) -> dict[str, Measured]:
    """Both contenders, alternating."""
    rows: dict[str, list[dict[str, Any]]] = {contender: [] for contender in CONTENDERS}
    for repeat in range(repeats):
        for contender in CONTENDERS[:: 1 if repeat % 2 == 0 else -1]:
            place = folder / f"{fmt}-{contender}-{repeat}"
            rows[contender].append(run_worker(contender, fmt, model, place))
    return {
        contender: Measured(
            export=median(row["export"] for row in rows[contender]),
            proof=median(row["proof"] for row in rows[contender]),
            process=median(row["process"] for row in rows[contender]),
            peak=median(row["peak_mb"] for row in rows[contender]),
            size=rows[contender][-1]["size"],
            artifact=Path(rows[contender][-1]["artifact"]),
        )
        for contender in CONTENDERS
    }


def latency(fmt: str, artifacts: dict[str, Path], seconds: float) -> dict[str, float]:
    """Milliseconds an inference, one thread, medians; and the median of the paired ratios ours / rival."""
    runs = {contender: open_runtime(fmt, path) for contender, path in artifacts.items()}
    for run in runs.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {contender: [] for contender in runs}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times["ours"]) < 10:
        order = CONTENDERS[:: 1 if len(times["ours"]) % 2 == 0 else -1]
        for contender in order:
            began = time.perf_counter()
            runs[contender]()
            times[contender].append(1000 * (time.perf_counter() - began))
    ratios = np.divide(times["ours"], times["rival"])
    return {**{name: median(values) for name, values in times.items()}, "ratio": float(np.median(ratios))}


def open_runtime(fmt: str, path: Path) -> Any:
    """A function that runs the artifact once on a seeded image, by its bare runtime with one thread."""
    random = np.random.default_rng(0)
    if fmt == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        detail = interpreter.get_input_details()[0]
        interpreter.set_tensor(detail["index"], random.random(detail["shape"], np.float32))
        return interpreter.invoke
    if fmt == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        shape = [extent if isinstance(extent, int) else 1 for extent in source.shape]
        feed = {source.name: random.random(shape, np.float32)}
        return lambda: session.run(None, feed)
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    (spec,) = signature.structured_input_signature[1].values()
    image = tf.constant(random.random([extent or 1 for extent in spec.shape], np.float32))
    return lambda: signature(**{spec.name: image})


def markdown(
    model: str, rows: dict[str, dict[str, Measured]], speeds: dict[str, dict[str, float]]
) -> list[str]:
    lines = []
    for fmt, row in rows.items():
        ours, rival, speed = row["ours"], row["rival"], speeds[fmt]
        export = f"{ours.export:.2f} (+ {ours.proof:.2f} proof) / {rival.export:.2f} s"
        cells = [
            f"{model} {fmt}",
            f"{export} = **{ours.export / rival.export:.3f}**",
            f"{ours.process:.1f} / {rival.process:.1f} s",
            f"{ours.peak:.0f} / {rival.peak:.0f} MB = **{ours.peak / rival.peak:.2f}**",
            f"{ours.size / 1e6:.2f} / {rival.size / 1e6:.2f} MB = **{ours.size / rival.size:.3f}**",
            f"{speed['ours']:.2f} / {speed['rival']:.2f} ms = **{speed['ratio']:.3f}**",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="resnet8,resnet50,resnet152")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of latency measurement a pair")
    options = parser.parse_args()
    print("| ours / rival | export stage | whole process | peak memory | file | latency, 1 thread |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models.split(","):
            folder = Path(temporary) / name
            folder.mkdir()
            model = folder / f"{name}.keras"
            subprocess.run(
                [sys.executable, "-m", "benchmarks.export_worker", "make", name, str(model)],
                check=True,
                env=quiet_environment(),
            )
            rows, speeds = {}, {}
            for fmt in options.formats.split(","):
                rows[fmt] = measure(fmt, model, folder, options.repeats)
                artifacts = {contender: rows[fmt][contender].artifact for contender in CONTENDERS}
                speeds[fmt] = latency(fmt, artifacts, options.seconds)
            print("\n".join(markdown(name, rows, speeds)), flush=True)
    print("\nRivals: " + "; ".join(f"{fmt}: {rival}" for fmt, rival in RIVALS.items()))


if __name__ == "__main__":
    main()
