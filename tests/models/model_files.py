"""Small model files written by hand, as Keras writes them: harmless, for tests to spoil."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def entry(class_name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def function(name: str, module: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def model(*layers: dict[str, Any], **dense: Any) -> dict[str, Any]:
    """A classifier of 2x2x1 images with further layers in front."""
    image = entry("InputLayer", name="image", batch_shape=[None, 2, 2, 1], dtype="float32")
    head = entry("Dense", name="head", units=3, **dense)
    return entry(
        "Sequential", "keras", name="net", layers=[image, *layers, entry("Flatten", name="flat"), head]
    )


def legacy(config: dict[str, Any]) -> dict[str, Any]:
    """The same as HDF5 files have it: classes without modules."""
    layers = [
        {"class_name": layer["class_name"], "config": layer["config"]} for layer in config["config"]["layers"]
    ]
    return {"class_name": config["class_name"], "config": {"name": "net", "layers": layers}}


def fill_weights(file: h5py.File) -> None:
    """The model's weights as Keras 3 keeps them."""
    file["layers/dense/vars/0"] = np.zeros((4, 3), np.float32)
    file["layers/dense/vars/1"] = np.zeros(3, np.float32)


def fill_legacy_weights(file: h5py.File) -> None:
    """The model's weights as Keras 2 keeps them."""
    weights = file.create_group("model_weights")
    weights.attrs["layer_names"] = [b"flat", b"head"]
    weights.create_group("flat").attrs["weight_names"] = np.zeros(0, "S1")
    head = weights.create_group("head")
    head.attrs["weight_names"] = [b"head/kernel:0", b"head/bias:0"]
    head["head/kernel:0"], head["head/bias:0"] = np.zeros((4, 3), np.float32), np.zeros(3, np.float32)


def weights(change: Callable[[h5py.File], None] = lambda file: None) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        fill_weights(file)
        change(file)
    return memory.getvalue()


def archive(
    folder: Path, config: Any = None, change: Callable[[h5py.File], None] = lambda file: None, **options: Any
) -> Path:
    """A ``.keras`` file as Keras writes it, but for what the caller changes."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr(METADATA, json.dumps({"keras_version": "3.15.1"}))
        file.writestr(CONFIG, json.dumps(model() if config is None else config))
        file.writestr(WEIGHTS, weights(change))
    return path


def hdf5(
    folder: Path, config: Any = None, change: Callable[[h5py.File], None] = lambda file: None, **options: Any
) -> Path:
    """A ``.h5`` file as Keras 2 writes it, but for what the caller changes."""
    path = folder / "model.h5"
    with h5py.File(path, "w", **options) as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["model_config"] = json.dumps(legacy(model()) if config is None else config)
        fill_legacy_weights(file)
        change(file)
    return path
