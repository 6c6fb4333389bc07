"""Quantized files against the float model, in the runtime that a device would use, one thread.

LiteRT runs TFLite files with XNNPACK, ONNX Runtime runs ONNX files at its default (full) optimization level.
Only these and NumPy: none of our code is between a file and its figures.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

Run: TypeAlias = "Callable[[NDArray[np.float32]], NDArray[np.float32]]"
"""From one model input (height, width, channels) to the outputs (classes,)."""

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """On one set of images: shares of 1, and dB."""

    top1: float
    agreement: float
    sqnr: float


def open_tflite(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(source["index"], encode(image[None], source))
        interpreter.invoke()
        return decode(interpreter.get_tensor(result["index"])[0], result)

    return run


def encode(values: NDArray[np.float32], detail: Mapping[str, Any]) -> NDArray[Any]:
    """Values as the tensor wants them: a rival's file may have integer inputs."""
    if detail["dtype"] == np.float32:
        return values
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    integers: NDArray[Any] = np.rint(values / scale) + zero_point
    return integers.clip(limits.min, limits.max).astype(np.dtype(detail["dtype"]))


def decode(values: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[np.float32]:
    if detail["dtype"] == np.float32:
        return values.astype(np.float32)
    scale, zero_point = detail["quantization"]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = {name: np.ascontiguousarray(image.transpose(2, 0, 1)[None])}
        outputs: NDArray[np.float32] = session.run(None, feed)[0][0]
        return outputs

    return run


OPENERS: dict[str, Callable[[Path], Run]] = {"tflite": open_tflite, "onnx": open_onnx}


def outputs_of(run: Run, images: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([run(image) for image in images])


def accuracy(
    reference: NDArray[np.float32], outputs: NDArray[np.float32], labels: NDArray[np.int64]
) -> Accuracy:
    """Ties go to the lowest index, as argmax does; the SQNR is over all outputs of all images."""
    return Accuracy(
        top1=float(np.mean(outputs.argmax(axis=1) == labels)),
        agreement=agreement(reference, outputs),
        sqnr=sqnr(reference, outputs),
    )


def agreement(reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    return float(np.mean(outputs.argmax(axis=1) == reference.argmax(axis=1)))


def sqnr(reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    noise = np.sum(np.square(reference - outputs, dtype=np.float64))
    signal = np.sum(np.square(reference, dtype=np.float64))
    return float(10 * np.log10(signal / noise)) if noise else float("inf")


def latencies(runs: Mapping[K, Callable[[], object]], seconds: float) -> dict[K, NDArray[np.float64]]:
    """Milliseconds a run of each; row by row the runs followed each other, in a new random order.

    Forwards and backwards in turn, the outermost would follow themselves every other time, find caches warm
    and be some percent faster on small models. Right before each timed run goes one of the same that is not
    timed, as on a device that runs one model.
    """
    for run in runs.values():
        for _ in range(3):
            run()
    times: dict[K, list[float]] = {name: [] for name in runs}
    order, random = list(runs), Random(0)
    deadline, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < deadline or rounds < 10:
        random.shuffle(order)
        for name in order:
            runs[name]()
            began = time.perf_counter()
            runs[name]()
            times[name].append(1000 * (time.perf_counter() - began))
        rounds += 1
    return {name: np.array(values) for name, values in times.items()}
