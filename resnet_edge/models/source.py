"""What the user calls MODEL: a registry name, a model file or a Keras model in memory, made ready to export."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_edge.data.labels import read_labels
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.data.shipped import FASHION_MNIST_LABELS
from resnet_edge.errors import UsageError
from resnet_edge.graph.importing.names import legal_name
from resnet_edge.models.registry import MODELS, find_model

if TYPE_CHECKING:
    from resnet_edge.pipeline import ExportOptions

_REGISTRY_ONLY = ("weights", "classes", "shortcut")
_FILE_ONLY = ("custom_objects", "allow_unsafe_code")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The user's model, ready to be imported.

    Attributes:
        name: Begins the artifacts' names.
        model: The Keras model with its weights.
        origin: ``registry``, ``file`` or ``memory``.
        path: The model file, if there is one.
        digest: Its SHA-256.
        weights: ``file``, ``random``, ``imagenet``, ``fashion-mnist``, or ``model`` where the model had them.
        weights_digest: SHA-256 of a weights file.
        custom_objects_digest: SHA-256 of the user's code.
        needs_code: Whether Keras can load the model only with that code.
        preprocessing: The contract between pixels and the model's input.
        labels: Names of the classes; empty when not known.
        warnings: What the user should know.
    """

    name: str
    model: Any
    origin: str
    path: Path | None = None
    digest: str = ""
    weights: str = "model"
    weights_digest: str = ""
    custom_objects_digest: str = ""
    needs_code: bool = False
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def open_source(model: Any, options: ExportOptions) -> Source:
    """Build, or load, the model that the user means.

    Args:
        model: A registry name, a path, or a ``keras.Model``.
        options: Weights, shapes, preprocessing, labels, custom objects.

    Raises:
        UsageError: There is no such model, or an option does not go with this kind of model.
        ModelRejectedError: The file or the weights cannot be used.
        DependencyMissingError: The weights need a download or package that is not there.
    """
    if not isinstance(model, str | Path):
        _refuse_options(options, (*_REGISTRY_ONLY, *_FILE_ONLY), "a model in memory")
        source = _from_memory(model, options)
    elif is_registry_name(model):
        _refuse_options(options, _FILE_ONLY, f"the registry model {model}")
        source = _from_registry(str(model), options)
    else:
        _refuse_options(options, _REGISTRY_ONLY, "a model file, which has its own")
        source = _from_file(Path(model), options)
    if options.labels is not None:
        source = replace(source, labels=read_labels(options.labels, classes=source.model.output_shape[-1]))
    return source


def is_registry_name(model: str | Path) -> bool:
    """Whether MODEL names a registry model rather than a file.

    Raises:
        UsageError: It is neither; the message has the nearest names.
    """
    text = str(model)
    if text in MODELS:
        return True
    if Path(text).exists() or Path(text).suffix or len(Path(text).parts) > 1:
        return False
    find_model(text)  # raises, with the nearest names
    return True


def _refuse_options(options: ExportOptions, names: tuple[str, ...], what: str) -> None:
    for name in names:
        if getattr(options, name):
            raise UsageError(
                f"--{name.replace('_', '-')} does not go with {what}",
                next_step="leave the option out",
            )


def _from_registry(name: str, options: ExportOptions) -> Source:
    from resnet_edge.models.build import build_model
    from resnet_edge.models.weights import resolve_weights

    spec = find_model(name)
    model = build_model(spec, options)
    report = resolve_weights(spec, options.weights, model)
    return report


def _from_file(path: Path, options: ExportOptions) -> Source:
    from resnet_edge.models.loading import load_model_file

    loaded = load_model_file(
        path,
        input_shape=options.input_shape,
        custom_objects=options.custom_objects,
        allow_unsafe_code=options.allow_unsafe_code,
    )
    source = _from_memory(loaded.model, options)
    return replace(
        source,
        name=legal_name(path.stem).replace("/", "_"),
        origin="file",
        path=path,
        digest=loaded.digest,
        custom_objects_digest=loaded.custom_objects_digest or "",
        needs_code=loaded.needs_code,
    )


def _from_memory(model: Any, options: ExportOptions) -> Source:
    warnings = (
        ()
        if options.preprocess
        else ("no --preprocess given: the model is taken to want pixels 0..255 as they are (raw)",)
    )
    return Source(
        name=legal_name(model.name).replace("/", "_"),
        model=model,
        origin="memory",
        preprocessing=_preprocessing(options, "raw", model),
        warnings=warnings,
    )
