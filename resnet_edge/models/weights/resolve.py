"""What ``--weights`` means: a file, a name on offer, or nothing."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_edge.data import shipped
from resnet_edge.errors import DependencyMissingError, UsageError
from resnet_edge.models.weights.container import TensorFile
from resnet_edge.models.weights.load import fill, load_weights
from resnet_edge.models.weights.report import WeightsReport

if TYPE_CHECKING:
    import keras

    from resnet_edge.models.spec import ModelSpec

_APPLICATIONS = {
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "resnet50v2": "ResNet50V2",
    "resnet101v2": "ResNet101V2",
    "resnet152v2": "ResNet152V2",
}
"""What keras.applications calls our models."""


def resolve_weights(spec: ModelSpec, source: str | None, model: keras.Model) -> WeightsReport:
    """Give ``model``, built from ``spec``, the weights that ``source`` names.

    Args:
        spec: The registry row.
        source: ``imagenet`` or ``fashion-mnist`` where the row offers it, a path, or None: ``model`` then
            keeps the random weights it was built with.
        model: Changed in place.

    Raises:
        UsageError: ``source`` is neither on offer for this model nor a file.
        ModelRejectedError: The weights do not fit or are damaged.
        DependencyMissingError: A download or package that they need is not there.
    """
    if source is None:
        return WeightsReport(kind="random", warnings=(f"{spec.name} has random weights: give --weights",))
    if source == "imagenet" and source in spec.weights:
        return _from_keras_applications(spec, model)
    if source in spec.weights:
        return replace(load_weights(model, spec, shipped.weights(f"{spec.name}-{source}")), kind=source)
    if Path(source).suffix or Path(source).exists():
        return load_weights(model, spec, source)
    raise UsageError(
        f"there are no weights {source!r} for {spec.name}",
        where="--weights",
        found=source,
        allowed=" or ".join((*spec.weights, "a file")),
    )


def _from_keras_applications(spec: ModelSpec, model: keras.Model) -> WeightsReport:
    """keras.applications' own download, moved over by layer names."""
    published = _download(spec)
    variables: dict[str, Any] = {variable.path: variable for variable in published.variables}
    file = TensorFile(
        shapes={name: tuple(variable.shape) for name, variable in variables.items()},
        read=lambda name: variables[name].numpy(),
    )
    naming = fill(model, spec, file, Path("imagenet"))
    return WeightsReport(
        kind="imagenet", naming=naming, tensors=len(variables), preprocessing=spec.preprocessing
    )


def _download(spec: ModelSpec) -> keras.Model:
    import keras

    make = getattr(keras.applications, _APPLICATIONS[spec.name])
    try:
        # Keras prints its progress on stdout, where a document may be expected.
        with contextlib.redirect_stdout(sys.stderr):
            return make(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise DependencyMissingError(
            f"the ImageNet weights of {spec.name} could not be downloaded",
            where=f"keras.applications.{make.__name__}",
            found=str(error).strip().split("\n")[0][:200],
            next_step="go online once (Keras keeps the file in ~/.keras/models), or give --weights FILE",
        ) from error
