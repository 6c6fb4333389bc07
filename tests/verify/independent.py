"""Computes a verification's figures once more, with nothing of the project: runtimes, NumPy and SciPy.

Run as ``python independent.py BUNDLE DATA.npz``; prints JSON. The model takes pixels / 255.
"""

import json
import pathlib
import sys

import keras
import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from scipy import optimize, spatial, special, stats

CONFIDENCE = 0.95


def run_keras(path, images):
    return np.asarray(keras.saving.load_model(path, compile=False).predict(images, verbose=0))


def run_tflite(path, images):
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(taken["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0].copy())
    return np.stack(rows)


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(None, {"image": image.transpose(2, 0, 1)[None]})[0] for image in images]
    )


def wilson(count, of):
    interval = stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return {"count": count, "of": of, "low": interval.low, "high": interval.high}


def drop_bound(lost, won, images, quantile):
    """The drop at which Tango's score is ``quantile``; the likeliest rates are searched for, not derived."""

    def score(drop):
        def unlikelihood(rate_won):
            rates = np.array([rate_won + drop, rate_won, 1 - 2 * rate_won - drop])
            return -np.sum(special.xlogy([lost, won, images - lost - won], rates))

        span = max(0.0, -drop), (1 - drop) / 2
        found = optimize.minimize_scalar(
            unlikelihood, bounds=span, method="bounded", options={"xatol": 1e-12}
        )
        return (lost - won - images * drop) / np.sqrt(images * (2 * found.x + drop - drop**2))

    return optimize.brentq(lambda drop: score(drop) - quantile, -0.9, 0.9, xtol=1e-10)


def drop(lost, won, images):
    quantile = stats.norm.ppf((1 + CONFIDENCE) / 2)
    return {
        "points": 100 * (lost - won) / images,
        "low": 100 * drop_bound(lost, won, images, quantile),
        "high": 100 * drop_bound(lost, won, images, -quantile),
        "lost": lost,
        "won": won,
        "p_value": stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0,
    }


def figures(reference, outputs, labels, step):
    theirs, ours = reference.astype(float), outputs.astype(float)
    error = np.abs(theirs - ours)
    # Stable, so that of equal classes the lowest is first.
    before, after = (np.argsort(-values, axis=1, kind="stable") for values in (theirs, ours))
    right_before, right = before[:, 0] == labels, after[:, 0] == labels
    images = len(labels)
    floor = np.finfo(np.float32).eps
    divergence = stats.entropy(np.maximum(theirs, floor), np.maximum(ours, floor), axis=1).mean()
    return {
        "parity": {
            "images": images,
            "max_abs_error": error.max(),
            "mean_abs_error": error.mean(),
            "max_abs_reference": np.abs(theirs).max(),
            "sqnr_db": 20 * np.log10(np.linalg.norm(theirs) / np.linalg.norm(error)),
            "cosine": 1 - spatial.distance.cosine(theirs.ravel(), ours.ravel()),
            "top1_agreement": wilson(int((before[:, 0] == after[:, 0]).sum()), images),
            "top5_agreement": wilson(int((before[:, :1] == after[:, :5]).any(axis=1).sum()), images),
            "kl_divergence": divergence,
            **({"max_lsb": error.max() / step, "mean_lsb": error.mean() / step} if step else {}),
        },
        "accuracy": {
            "top1": wilson(int(right.sum()), images),
            "top5": wilson(int((after[:, :5] == labels[:, None]).any(axis=1).sum()), images),
            "reference_top1": wilson(int(right_before.sum()), images),
            "drop": drop(int((right_before & ~right).sum()), int((right & ~right_before).sum()), images),
        },
    }


def main(bundle, data):
    with np.load(data) as arrays:
        images, labels = arrays["images"].astype(np.float32) / np.float32(255), arrays["labels"]
    reference = run_keras(bundle / "reference.keras", images)
    runs = {".tflite": run_tflite, ".onnx": run_onnx}
    found = {
        path.name: figures(
            reference, runs[path.suffix](path, images), labels, 1 / 256 if "int8" in path.name else None
        )
        for path in bundle.iterdir()
        if path.suffix in runs
    }
    assert not any(name.startswith("resnet_edge") for name in sys.modules)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
