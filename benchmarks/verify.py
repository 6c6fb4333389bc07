"""Verification's run of artifacts against a bare loop over the runtime; prints a Markdown table.

    python -m benchmarks.verify [--batch 1|dynamic] [--samples 10000] [--threads 1] [--repeats 5]

The shipped model, whose inferences are so short that every overhead shows, on the shipped test images. Both
ways open the artifact, start from the same .npz file and end with all outputs in an array; they use the same
batches and threads, in one process, and take turns. The bare loop is what a script would do that knows the
runtime only: read the file, and for each batch normalize, run, keep the outputs.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge import ExportOptions, QuantizeOptions, export, quantize
from resnet_edge.data.datasets import Dataset, open_dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.engines.batching import OPEN_BATCH
from resnet_edge.manifest import read_manifest
from resnet_edge.runners import Load
from resnet_edge.runners.local import LocalRunner
from resnet_edge.verification.running import run_all

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """What both ways have to do."""

    artifact: Path
    format: str
    images: Path
    preprocessing: Preprocessing
    batch: int
    threads: int

    def ours(self) -> np.ndarray:
        """Verification's way: images one by one under the contract, outputs on disk."""
        dataset = open_dataset(str(self.images), self.preprocessing)
        load = Load(artifact=self.artifact, format=self.format, threads=self.threads)
        with LocalRunner() as runner, runner.open(load) as engine, tempfile.TemporaryDirectory() as folder:
            found = run_all(
                {"model": engine.run},
                dataset,
                classes=CLASSES,
                folder=Path(folder),
                progress=lambda _: None,
            )
            return np.array(found.arrays["model"])

    def bare(self) -> np.ndarray:
        """A loop over the runtime."""
        run = open_bare(self.format, self.artifact, self.threads)
        contract = self.preprocessing
        factor, offset = (numbers.astype(np.float32) for numbers in contract.affine())
        with np.load(self.images) as file:
            pixels = file["images"].reshape(-1, *contract.input_size, contract.channels)
        starts = range(0, len(pixels), self.batch)
        return np.concatenate([run(pixels[start : start + self.batch] * factor + offset) for start in starts])


def open_bare(fmt: str, artifact: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function of one batch (n, height, width, channels), by the bare runtime."""
    if fmt == "tflite":
        return bare_litert(artifact, threads)
    if fmt == "onnx":
        return bare_onnxruntime(artifact, threads)
    return bare_tensorflow(artifact, threads)


def bare_litert(artifact: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact), num_threads=threads)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    allocated = None

    def run(batch: np.ndarray) -> np.ndarray:
        nonlocal allocated
        if batch.shape != allocated:
            interpreter.resize_tensor_input(source, batch.shape)
            interpreter.allocate_tensors()
            allocated = batch.shape
        interpreter.set_tensor(source, batch)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(target))

    return run


def bare_onnxruntime(artifact: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: np.asarray(session.run(None, {name: batch.transpose(0, 3, 1, 2)})[0])


def bare_tensorflow(artifact: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # the pool is there already, with as many threads
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = tf.saved_model.load(str(artifact))
    signature = model.signatures["serving_default"]
    (source,) = signature.structured_input_signature[1]
    (target,) = signature.structured_outputs

    def run(batch: np.ndarray) -> np.ndarray:
        assert model is not None  # a signature does not keep its model alive, a closure does
        return np.asarray(signature(**{source: tf.constant(batch)})[target])

    return run


def timed(way: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    outputs = way()
    return time.perf_counter() - began, outputs


def compare(task: Task, repeats: int) -> str:
    """One row of the table; the outputs of both ways must agree, or they did not do the same."""
    ways = {"ours": task.ours, "bare": task.bare}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, np.ndarray] = {}
    for repeat in range(-1, repeats):  # the first round warms up
        for name in list(ways)[:: 1 if repeat % 2 == 0 else -1]:
            taken, outputs[name] = timed(ways[name])
            if repeat >= 0:
                seconds[name].append(taken)
    if not np.array_equal(outputs["ours"], outputs["bare"]):
        raise SystemExit(f"{task.artifact.name}: both ways must compute the same, bit by bit")
    ratio = median(ours / bare for ours, bare in zip(seconds["ours"], seconds["bare"], strict=True))
    ours, bare = (median(seconds[name]) for name in ("ours", "bare"))
    return f"| {task.artifact.name} | {ours:.2f} | {bare:.2f} | {ratio:.2f} |"


def shipped_bundle(folder: Path, batch: int | None) -> Path:
    """The shipped model in every format, float and int8."""
    bundle = folder / "bundle"
    export("resnet8", bundle, ExportOptions(weights="fashion-mnist", batch=batch))
    quantize(bundle, None, QuantizeOptions(recipes=("int8",)))
    return bundle


def test_images(folder: Path, contract: Preprocessing, samples: int) -> Path:
    """The shipped test images as a file of pixels."""
    dataset: Dataset = open_dataset("fashion-mnist", contract, split="test")
    path = folder / "images.npz"
    np.savez_compressed(path, images=np.stack(list(dataset.fitted(0, samples))))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", default="1", help="1 or dynamic")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    batch = None if options.batch == "dynamic" else int(options.batch)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = shipped_bundle(folder, batch)
        manifest = read_manifest(bundle)
        contract = Preprocessing.from_json(manifest.preprocessing)
        print("| artifact | verify, s | bare loop, s | ratio |\n|---|---|---|---|")
        images = test_images(folder, contract, options.samples)
        for artifact in manifest.artifacts:
            task = Task(
                artifact=bundle / artifact.path,
                format=artifact.format,
                images=images,
                preprocessing=contract,
                batch=batch or OPEN_BATCH,
                threads=options.threads,
            )
            print(compare(task, options.repeats), flush=True)


if __name__ == "__main__":
    main()
