"""One export in one process, for ``benchmarks.export``: prints its figures as JSON.

python -m benchmarks.export_worker make NAME FILE.keras
python -m benchmarks.export_worker ours|rival FORMAT FILE.keras FOLDER
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

FOLDED = ("import the graph", "fold and fuse")
PROVEN = ("run the model in Keras", "keep the reference")


def make(name: str, path: Path) -> None:
    """Save a registry model with random weights and a randomized batch norm, as a trained one has."""
    from resnet_edge.models.build import build_model
    from resnet_edge.models.registry import find_model
    from tests.traps import randomize

    model = build_model(find_model(name))
    randomize(model)
    model.save(path)


def ours(fmt: str, model: Path, folder: Path) -> dict[str, object]:
    """Our export; the proof and the kept reference, which no rival has, are told apart."""
    from resnet_edge.pipeline import ExportOptions, export

    result = export(model, folder, ExportOptions(formats=(fmt,), preprocess="tf"))
    seconds = result.seconds
    (artifact,) = result.manifest.artifacts
    return {
        "export": sum(seconds[stage] for stage in (*FOLDED, f"write {fmt}")),
        "proof": sum(seconds[stage] for stage in (*PROVEN, f"prove {fmt}")),
        "size": artifact.size,
        "artifact": str(folder / artifact.path),
    }


def rival(fmt: str, model_file: Path, folder: Path) -> dict[str, object]:
    """What Keras' and TensorFlow's own documentation says to do."""
    import keras

    model = keras.saving.load_model(model_file)
    # Keras does not export a model to ONNX that was never called; not timed, in the rival's favour.
    model(keras.ops.zeros((1, *model.input_shape[1:])))
    folder.mkdir()
    began = time.perf_counter()
    if fmt == "savedmodel":
        artifact = folder / "saved"
        model.export(artifact, verbose=False)
    elif fmt == "onnx":
        artifact = folder / "model.onnx"
        model.export(artifact, format="onnx", verbose=False)
    else:
        import tensorflow as tf

        artifact = folder / "model.tflite"
        model.export(folder / "saved", verbose=False)
        artifact.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert())
    seconds = time.perf_counter() - began
    files = artifact.rglob("*") if artifact.is_dir() else [artifact]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return {"export": seconds, "proof": 0.0, "size": size, "artifact": str(artifact)}


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "make":
        make(arguments[0], Path(arguments[1]))
        return
    fmt, model, folder = arguments
    figures = {"ours": ours, "rival": rival}[what](fmt, Path(model), Path(folder))
    # Linux counts in kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({**figures, "peak_mb": peak}))


if __name__ == "__main__":
    main()
