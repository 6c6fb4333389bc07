"""Load a weight file into a registry model: all of it, or an error that says what does not fit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ModelRejectedError, UsageError
from resnet_edge.models.conventions import CONVENTIONS, Naming
from resnet_edge.models.weights.container import open_npz, open_safetensors, open_torch, reading
from resnet_edge.models.weights.hdf5 import open_hdf5, open_keras_archive
from resnet_edge.models.weights.mismatch import Fit, mismatch
from resnet_edge.models.weights.naming import canonical, recognize
from resnet_edge.models.weights.report import WeightsReport

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    from resnet_edge.models.spec import ModelSpec
    from resnet_edge.models.weights.container import TensorFile

_OPENERS = {
    ".safetensors": open_safetensors,
    ".npz": open_npz,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".keras": open_keras_archive,
    ".pt": open_torch,
    ".pth": open_torch,
    ".th": open_torch,
    ".bin": open_torch,
}

METADATA_KEY = "resnet_edge"
"""Where our own ``.safetensors`` files keep JSON with ``preprocess`` and ``labels``."""

_KINDS = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense"}
"""What Keras calls unnamed layers of each class."""


def load_weights(model: keras.Model, spec: ModelSpec, path: str | Path) -> WeightsReport:
    """Give ``model``, built from ``spec``, the weights in a file; tensors are read one at a time.

    Raises:
        UsageError: There is no such file, or its ending says nothing.
        ModelRejectedError: The file is damaged, its tensors are not all of the model's and only those, or
            one is not finite.
        DependencyMissingError: The file needs PyTorch.
    """
    path = Path(path)
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise UsageError(
            "the weight file's ending says nothing about its kind",
            where=str(path),
            found=path.suffix or "none",
            allowed=", ".join(_OPENERS),
        )
    if not path.is_file():
        raise UsageError("there is no such weight file", where="--weights", found=str(path))
    with opener(path) as file:
        naming = fill(model, spec, file, path)
        with reading(path):
            card = dict(json.loads(file.metadata.get(METADATA_KEY, "{}")))
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return WeightsReport(
        kind="file",
        naming=naming,
        tensors=len(model.variables),
        digest=digest,
        preprocessing=card.get("preprocess") or _published_preprocessing(spec, naming, model),
        labels=tuple(card.get("labels", ())),
    )


def _published_preprocessing(spec: ModelSpec, naming: Naming, model: keras.Model) -> str | None:
    """The contract of the family's published weights, if the file and the model's input are like theirs."""
    as_published = CONVENTIONS[spec.family].naming is naming and model.input_shape[-1] == spec.input_shape[-1]
    return spec.preprocessing if as_published else None


def fill(model: keras.Model, spec: ModelSpec, file: TensorFile, path: Path) -> Naming:
    """Assign every tensor of ``file`` to its variable.

    Raises:
        ModelRejectedError: Something is missing, left over, of another shape or not finite.
    """
    variables = {
        f"{layer.name}/{variable.name}": variable for layer in model.layers for variable in layer.weights
    }
    naming = recognize(file.shapes)
    kinds = [(_KINDS[kind], layer.name) for layer in model.layers if (kind := type(layer).__name__) in _KINDS]
    tensors = canonical(file.shapes, naming, kinds)
    fit = Fit(wanted={name: tuple(variable.shape) for name, variable in variables.items()}, tensors=tensors)
    if not fit:
        raise mismatch(fit, spec, naming, path)
    for name, variable in variables.items():
        tensor = tensors[name]
        with reading(path):
            values = tensor.arrange(file.read(tensor.source)).astype(np.float32, casting="same_kind")
        _refuse_non_finite(values, tensor.source, path)
        variable.assign(values)
    return naming


def _refuse_non_finite(values: NDArray[np.float32], name: str, path: Path) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise ModelRejectedError(
            "the weights are not finite",
            where=f"{name} in {path}",
            found=f"{finite.size - np.count_nonzero(finite)} of {finite.size} values are NaN or infinite",
            next_step="take a checkpoint from before the training diverged",
        )
