"""The float models and images of ``benchmarks.quantize``, made once, the same for every contender.

    python -m benchmarks.quantize_models resnet8|resnet8-logits|resnet20|resnet50 FOLDER

leaves in FOLDER: ``bundle/`` (our float export), ``bundle-pixels/`` (the same with ``--fold-input``, where
a trained model does not take pixels anyway), ``float.onnx`` (from the bundle: folded, batch 1, NCHW, the
easiest food for every ONNX tool), ``saved/`` (the Keras model by TensorFlow with a fixed batch of 1),
``float.tflite`` (by TFLiteConverter), ``images.npz`` (pixels for us), ``calibration.npy`` (the same
images as model inputs NHWC, for the rivals) and ``evaluation.npz`` (model inputs, their pixels, labels).
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.data.preprocessing import Preprocessing

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
MODELS = ("resnet8", "resnet8-logits", "resnet20", "resnet50")
CALIBRATION = {"resnet8": 200, "resnet8-logits": 200, "resnet20": 200, "resnet50": 50}
JPEG_QUALITY = 30
PIXEL_BUNDLE = "bundle-pixels"
SETS = {"clean": "clean", "jpeg": f"JPEG {JPEG_QUALITY}"}
"""Of evaluation images, and their titles in the tables."""


def source(name: str) -> tuple[Any, dict[str, Any]]:
    """What to export, and the options of the export."""
    import keras

    if name == "resnet8":
        return SHARED / "mlperf_tiny_resnet8.h5", {}
    if name == "resnet8-logits":
        model = keras.saving.load_model(SHARED / "mlperf_tiny_resnet8.h5", compile=False)
        model.layers[-1].activation = keras.activations.linear
        logits = keras.models.clone_model(model)
        logits.set_weights(model.get_weights())
        return logits, {"preprocess": "raw"}
    if name == "resnet20":
        return "resnet20", {"weights": str(SHARED / "cifar10_resnet20.safetensors")}
    from resnet_edge.models.build import build_model
    from resnet_edge.models.registry import find_model
    from tests.traps import randomize

    model = build_model(find_model(name))
    randomize(model)
    return model, {"preprocess": "torch"}


def write_float(name: str, folder: Path) -> Preprocessing:
    """Export by us, and by TensorFlow from the Keras model that the bundle keeps; the contract."""
    import keras
    import tensorflow as tf

    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.manifest import read_manifest
    from resnet_edge.pipeline import ExportOptions, export

    model, options = source(name)
    bundle = folder / "bundle"
    export(model, bundle, ExportOptions(formats=("tflite", "onnx", "savedmodel"), **options))
    (onnx_file,) = bundle.glob("*-fp32.onnx")
    shutil.copy(onnx_file, folder / "float.onnx")
    contract = Preprocessing.from_json(read_manifest(bundle).preprocessing)
    if name != "resnet50" and contract.name != "raw":
        pixels = ExportOptions(formats=("tflite", "onnx"), fold_input=True, **options)
        export(model, folder / PIXEL_BUNDLE, pixels)
    kept = keras.saving.load_model(bundle / "reference.keras", compile=False)
    archive = keras.export.ExportArchive()
    archive.track(kept)
    shape = (1, *kept.input_shape[1:])
    archive.add_endpoint("serve", kept.call, input_signature=[tf.TensorSpec(shape, tf.float32)])
    archive.write_out(str(folder / "saved"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "float.tflite").write_bytes(converter.convert())
    return contract


def recompressed(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images after JPEG: many near-ties, where differences between files show."""
    from PIL import Image

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        return np.asarray(Image.open(buffer))

    return np.stack([one(image) for image in images])


def blurred_noise(count: int) -> NDArray[np.uint8]:
    """Images (count, 224, 224, 3) whose neighbouring pixels agree, as in photographs."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 56, 56, 3), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def write_images(name: str, folder: Path, contract: Preprocessing) -> None:
    """Calibration images and, for the trained models, 500 test + 800 unused training images, twice."""
    count = CALIBRATION[name]
    if name == "resnet50":
        pixels = blurred_noise(count)
        np.savez(folder / "images.npz", images=pixels)
        np.save(folder / "calibration.npy", contract.apply(pixels))
        return
    train, test = np.load(SHARED / "cifar10_train1000.npz"), np.load(SHARED / "cifar10_test500.npz")
    np.savez(folder / "images.npz", images=train["images"])
    np.save(folder / "calibration.npy", contract.apply(train["images"][:count]))
    clean = np.concatenate([test["images"], train["images"][count:]])
    jpeg = recompressed(clean)
    np.savez(
        folder / "evaluation.npz",
        clean=contract.apply(clean),
        jpeg=contract.apply(jpeg),
        clean_pixels=clean,
        jpeg_pixels=jpeg,
        labels=np.concatenate([test["labels"], train["labels"][count:]]),
    )


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True)
    write_images(name, folder, write_float(name, folder))


if __name__ == "__main__":
    main()
