"""One quantization in one process, for ``benchmarks.quantize``: prints its figures as JSON.

    python benchmarks/quantize_worker.py CONTENDER FOLDER DESTINATION [COUNT]

FOLDER is what ``benchmarks.quantize_models`` left, COUNT the number of calibration images. It runs in the
contender's own environment, so nothing but NumPy is imported before a contender asks for it. The clock
starts before the contender's imports: a user waits for them too.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Figures = dict[str, Any]


def calibration_images(folder: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Model inputs (1, height, width, channels), one after the other."""
    for image in np.load(folder / "calibration.npy"):
        yield image[None]


def channels_first(folder: Path) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The feeds of the ONNX file, whose input is called ``image``."""
    for image in calibration_images(folder):
        yield {"image": np.ascontiguousarray(image.transpose(0, 3, 1, 2))}


def ours(formats: tuple[str, ...], bundle: str = "bundle") -> Callable[[Path, Path, int], Figures]:
    """``resnet-edge quantize BUNDLE --recipe int8`` with its defaults; the proof is also told apart."""

    def run(folder: Path, destination: Path, count: int) -> Figures:
        from resnet_edge.pipeline import QuantizeOptions, quantize

        options = QuantizeOptions(
            recipes=("int8",), calibration=str(folder / "images.npz"), samples=count, formats=formats
        )
        result = quantize(str(folder / bundle), destination / "bundle", options)
        proving = ("run ", "read back ", "examine ")
        proof = sum(seconds for stage, seconds in result.seconds.items() if stage.startswith(proving))
        files = [artifact for artifact in result.manifest.artifacts if artifact.precision == "int8"]
        return {
            "proof": proof,
            "stages": dict(result.seconds),
            "files": {artifact.format: str(destination / "bundle" / artifact.path) for artifact in files},
        }

    return run


def tflite_converter(folder: Path, destination: Path, _: int) -> Figures:
    """Post-training quantization as TensorFlow documents it; input and output stay float32, as ours."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in calibration_images(folder))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    path = destination / "model.tflite"
    path.write_bytes(converter.convert())
    return {"files": {"tflite": str(path)}}


def litert_quantizer(folder: Path, destination: Path, _: int) -> Figures:
    """The recipe ``static_wi8_ai8`` on TFLiteConverter's float file."""
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import quantizer, recipe  # type: ignore[import-not-found]

    model = str(folder / "float.tflite")
    ((key, signature),) = Interpreter(model).get_signature_list().items()
    (name,) = signature["inputs"]
    work = quantizer.Quantizer(model)
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    # It goes through them more than once.
    feeds = {key: [{name: image} for image in calibration_images(folder)]}
    path = destination / "model.tflite"
    work.quantize(work.calibrate(feeds)).export_model(str(path))
    return {"files": {"tflite": str(path)}}


def quantize_static(method: str, **extra: object) -> Callable[[Path, Path, int], Figures]:
    """ONNX Runtime's tool: QDQ, uint8 activations, int8 weights per channel, as its CPU kernels like it."""

    def run(folder: Path, destination: Path, _: int) -> Figures:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
        )
        from onnxruntime.quantization import quantize_static as quantize

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.feeds = channels_first(folder)

            def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
                return next(self.feeds, None)

        path = destination / "model.onnx"
        quantize(
            str(folder / "float.onnx"),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            extra_options=extra,
        )
        return {"files": {"onnx": str(path)}}

    return run


def nncf(folder: Path, destination: Path, count: int) -> Figures:
    """``nncf.quantize`` with its defaults (fast bias correction), all images."""
    import nncf  # type: ignore[import-not-found]
    import onnx

    dataset = nncf.Dataset(list(channels_first(folder)))
    quantized = nncf.quantize(onnx.load(folder / "float.onnx"), dataset, subset_size=count)
    path = destination / "model.onnx"
    onnx.save(quantized, path)
    return {"files": {"onnx": str(path)}}


def aimet(scheme: str, *, adaround: bool = False) -> Callable[[Path, Path, int], Figures]:
    """AIMET-ONNX with int8 weights per channel; the QDQ file that it writes for ONNX Runtime."""

    def run(folder: Path, destination: Path, _: int) -> Figures:
        import aimet_onnx  # type: ignore[import-not-found]
        import onnx

        feeds = list(channels_first(folder))
        simulation = aimet_onnx.QuantizationSimModel(
            onnx.load(folder / "float.onnx"),
            param_type=aimet_onnx.int8,
            activation_type=aimet_onnx.int8,
            quant_scheme=scheme,
        )
        if adaround:
            aimet_onnx.apply_adaround(simulation, feeds)
        simulation.compute_encodings(feeds)
        path = destination / "model.onnx"
        onnx.save(simulation.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True), path)
        return {"files": {"onnx": str(path)}}

    return run


CONTENDERS: dict[str, Callable[[Path, Path, int], Figures]] = {
    "ours-tflite": ours(("tflite",)),
    "ours-tflite-pixels": ours(("tflite",), "bundle-pixels"),
    "ours-onnx": ours(("onnx",)),
    "ours-onnx-pixels": ours(("onnx",), "bundle-pixels"),
    "ours-savedmodel": ours(("savedmodel",)),
    "ours-all": ours(("tflite", "onnx", "savedmodel")),
    "tflite-converter": tflite_converter,
    "litert-quantizer": litert_quantizer,
    "ort-minmax": quantize_static("MinMax"),
    "ort-percentile": quantize_static("Percentile"),
    "nncf": nncf,
    "aimet-minmax": aimet("min_max"),
    "aimet-tf-enhanced": aimet("tf_enhanced"),
    "aimet-adaround": aimet("tf_enhanced", adaround=True),
}


def peak_megabytes() -> float:
    """Largest resident size since this program began (Linux): ``getrusage`` would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    contender, folder, destination = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    destination.mkdir(parents=True)
    began = time.perf_counter()
    figures = CONTENDERS[contender](folder, destination, int(sys.argv[4]))
    seconds = time.perf_counter() - began
    print(json.dumps({"proof": 0.0, **figures, "seconds": seconds, "peak_mb": peak_megabytes()}))


if __name__ == "__main__":
    main()
