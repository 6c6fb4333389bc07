"""The user's model file becomes a Keras model.

The configuration that was checked is the one that is built - the file's is not read a second time - and the
model is not compiled. Keras' public pieces are used one by one because its ``load_model`` reads the weights
of an archive into memory whole, compiles nested models, and cannot take a configuration that was put right.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

# Without it layers that share an object would get one each; Keras offers no public way in.
from keras.src.saving.serialization_lib import ObjectSharingScope

from resnet_edge.errors import ModelRejectedError, ResnetEdgeError
from resnet_edge.models.custom_objects import CustomObjects, load_custom_objects
from resnet_edge.models.keras2 import modernized
from resnet_edge.models.safety import CheckedConfig, check_hdf5, check_keras_archive
from resnet_edge.models.safety.archive import WEIGHTS, open_archive
from resnet_edge.temporary import naming_a_full_disk, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from resnet_edge.graph.geometry import Shape

_REGISTRY_WAY_OUT = "weights alone go with a registry name: resnet-edge export resnet50 --weights FILE"
_KERAS_WAY_OUT = "give the .keras or .h5 file that it was exported from"
_WAYS_OUT: Mapping[str, str] = {
    **dict.fromkeys((".pt", ".pth", ".th", ".safetensors", ".npz"), _REGISTRY_WAY_OUT),
    **dict.fromkeys((".onnx", ".tflite", ".pb"), _KERAS_WAY_OUT),
}

_LONGEST_CAUSE = 300


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model file's content.

    Attributes:
        model: The ``keras.Model`` with its weights, not compiled.
        digest: SHA-256 of the file.
        custom_objects_digest: SHA-256 of the user's code, None where there was none.
        format: What the file is.
        needs_code: Whether it takes more than Keras to load it: the user's code, or code in the file.
    """

    model: Any
    digest: str
    custom_objects_digest: str | None
    format: Literal["keras", "h5"]
    needs_code: bool


def load_model_file(
    path: Path,
    *,
    input_shape: Shape | None = None,
    custom_objects: Path | None = None,
    allow_unsafe_code: bool = False,
) -> LoadedModel:
    """Check a model file, then load it.

    Args:
        path: A ``.keras`` archive or a whole model in ``.h5`` (of Keras 2 too).
        input_shape: (height, width, channels) for a model that leaves them open; what it says itself stays.
        custom_objects: The user's Python file with the classes that the model needs; it is run.
        allow_unsafe_code: Whether code kept in the model file (Lambda layers) may run.

    Raises:
        UnsafeFileError: The file holds code, links or sizes that must not reach Keras.
        ModelRejectedError: It is no model file, is damaged, has classes outside the closed set, cannot be
            built by Keras, or has weights that are not finite numbers.
    """
    kind = _kind(path)
    own = load_custom_objects(custom_objects) if custom_objects else CustomObjects()
    check = check_keras_archive if kind == "keras" else check_hdf5
    checked = check(path, custom_classes=own.names, allow_unsafe_code=allow_unsafe_code)
    if checked is None:
        raise ModelRejectedError(
            "the file holds weights but no model",
            where=str(path),
            allowed="a whole model: model.save('NAME.keras')",
            next_step=_REGISTRY_WAY_OUT,
        )
    with _keras_at_work(path):
        model = _build(checked, kind, input_shape, own, allow_unsafe_code=allow_unsafe_code)
        _load_weights(model, path, kind)
    _check_finite(model, path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedModel(
        model=model,
        digest=digest,
        custom_objects_digest=own.digest,
        format=kind,
        needs_code=checked.needs_code,
    )


def _kind(path: Path) -> Literal["keras", "h5"]:
    """What the path's name says it is, if that can be loaded at all."""
    suffix = path.suffix.lower()
    if path.is_dir():
        saved_model = (path / "saved_model.pb").exists()
        found = "a SavedModel" if saved_model else "a folder"
        next_step = _KERAS_WAY_OUT if saved_model else "give the model file itself"
    elif not path.exists():
        found, next_step = "no such file", "check the path"
    elif suffix == ".keras":
        return "keras"
    elif suffix in (".h5", ".hdf5"):
        return "h5"
    else:
        found = f"a file named *{path.suffix}"
        next_step = _WAYS_OUT.get(suffix, "save the model by Keras: model.save('NAME.keras')")
    raise ModelRejectedError(
        "the model cannot be loaded",
        where=str(path),
        found=found,
        allowed="a .keras or .h5 file, or a registry name",
        next_step=next_step,
    )


def _build(
    checked: CheckedConfig,
    kind: Literal["keras", "h5"],
    input_shape: Shape | None,
    own: CustomObjects,
    *,
    allow_unsafe_code: bool,
) -> Any:
    config = copy.deepcopy(dict(checked.config))  # Keras takes it apart
    if kind == "h5":
        config = modernized(config, keras_version=checked.keras_version)
    if input_shape is not None:
        _close_input(config, input_shape)
    with _registered(own.objects), ObjectSharingScope():
        return keras.saving.deserialize_keras_object(config, safe_mode=not allow_unsafe_code)


@contextlib.contextmanager
def _registered(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let Keras find the objects everywhere: as an argument they get lost inside the layers of HDF5 files."""
    registry = keras.saving.get_custom_objects()
    before = dict(registry)
    registry.update(objects)
    try:
        yield
    finally:
        registry.clear()
        registry.update(before)


def _close_input(config: dict[str, Any], input_shape: Shape) -> None:
    """Write the image's size into the outermost model's input layer where it is left open."""
    layers = config["config"].get("layers", [])
    for settings in (layer["config"] for layer in layers if layer["class_name"] == "InputLayer"):
        for key in ("batch_shape", "batch_input_shape"):
            shape = settings.get(key)
            if shape and len(shape) == len(input_shape) + 1:
                settings[key] = [
                    shape[0],
                    *(
                        wanted if own is None else own
                        for own, wanted in zip(shape[1:], input_shape, strict=True)
                    ),
                ]


def _load_weights(model: Any, path: Path, kind: Literal["keras", "h5"]) -> None:
    if kind == "h5":
        model.load_weights(path)
        return
    with temporary_folder() as folder:
        # Keras would seek back and forth in the archive through zipfile, and skip the check sum on the way.
        with open_archive(path) as archive, naming_a_full_disk():
            weights = archive.extract(WEIGHTS, folder)
        model.load_weights(weights)


@contextlib.contextmanager
def _keras_at_work(path: Path) -> Iterator[None]:
    """Whatever Keras or the layers' code raise is one error; weights that were left out count as one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Keras' advice to those who write a model
            warnings.filterwarnings("error", message="Skipping nested container")
            yield
    except ResnetEdgeError:
        raise
    except Exception as error:
        raise ModelRejectedError(
            "Keras cannot load the model",
            where=str(path),
            found=f"{type(error).__name__}: {_cause(error)}",
            next_step="load it in Python (keras.saving.load_model) to see more, and save it again",
        ) from error


def _cause(error: Exception) -> str:
    """The first line of what went wrong in the end; Keras wraps it in copies of the configuration."""
    text = str(error).rpartition("Exception encountered:")[2].strip() or "no message"
    line = text.splitlines()[0]
    return line if len(line) <= _LONGEST_CAUSE else line[:_LONGEST_CAUSE] + " ..."


def _check_finite(model: Any, path: Path) -> None:
    broken = [
        weight.path for weight in model.weights if not np.isfinite(keras.ops.convert_to_numpy(weight)).all()
    ]
    if broken:
        raise ModelRejectedError(
            "the model has weights that are NaN or infinite",
            where=str(path),
            found=", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else ""),
            allowed="finite numbers",
            next_step="train the model again: it diverged, or the file is damaged",
        )
