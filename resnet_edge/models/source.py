"""What the user calls MODEL - a registry name, a model file, a Keras model in memory - ready to export."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.graph.importing import image_shape
from resnet_edge.graph.importing.names import legal_name
from resnet_edge.models.build import build_model
from resnet_edge.models.loading import load_model_file
from resnet_edge.models.registry import MODELS, find_model
from resnet_edge.models.spec import Shortcut
from resnet_edge.models.weights import resolve_weights

if TYPE_CHECKING:
    from resnet_edge.pipeline import ExportOptions

_REGISTRY_ONLY = ("weights", "classes", "width", "shortcut")
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
        options: Weights, shapes, preprocessing, custom objects.

    Raises:
        UsageError: There is no such model, or an option does not go with this kind of model.
        ModelRejectedError: The file or the weights cannot be used.
        DependencyMissingError: The weights need a download or package that is not there.
    """
    if not isinstance(model, str | Path):
        options.refuse((*_REGISTRY_ONLY, *_FILE_ONLY), "a model in memory")
        return _from_memory(model, options)
    if is_registry_name(model):
        options.refuse(_FILE_ONLY, f"the registry model {model}")
        return _from_registry(str(model), options)
    options.refuse(_REGISTRY_ONLY, "a model file, which has its own")
    return _from_file(Path(model), options)


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


def _from_registry(name: str, options: ExportOptions) -> Source:
    spec = find_model(name)
    model = build_model(
        spec,
        input_shape=options.input_shape or spec.input_shape_with(options.weights),
        classes=options.classes,
        width=options.width,
        shortcut=Shortcut(options.shortcut) if options.shortcut else None,
        seed=0 if options.weights is None else None,
    )
    report = resolve_weights(spec, options.weights, model)
    contract = options.preprocess or report.preprocessing or spec.preprocessing
    return Source(
        name=spec.name,
        model=model,
        origin="registry",
        weights=report.kind,
        weights_digest=report.digest,
        preprocessing=_preprocessing(contract, model, options, large_images=spec.large_images),
        labels=report.labels,
        warnings=report.warnings,
    )


def _from_file(path: Path, options: ExportOptions) -> Source:
    loaded = load_model_file(
        path,
        input_shape=options.input_shape,
        custom_objects=options.custom_objects,
        allow_unsafe_code=options.allow_unsafe_code,
    )
    source = _from_memory(loaded.model, options)
    return replace(
        source,
        name=_artifact_name(path.stem),
        origin="file",
        path=path,
        digest=loaded.digest,
        custom_objects_digest=loaded.custom_objects_digest or "",
        needs_code=loaded.needs_code,
    )


def _from_memory(model: Any, options: ExportOptions) -> Source:
    raw = "no --preprocess given: the model is taken to want pixels 0..255 as they are (raw)"
    return Source(
        name=_artifact_name(model.name),
        model=model,
        origin="memory",
        preprocessing=_preprocessing(options.preprocess or "raw", model, options),
        warnings=_precision_warnings(model) if options.preprocess else (raw, *_precision_warnings(model)),
    )


def _artifact_name(text: str) -> str:
    return legal_name(text).replace("/", "_")


def _preprocessing(
    contract: str, model: Any, options: ExportOptions, *, large_images: bool = False
) -> Preprocessing:
    height, width, channels = image_shape(model, options.input_shape)
    # ImageNet's models were evaluated on the middle 224 pixels of 256.
    resize = (round(height * 256 / 224), round(width * 256 / 224)) if large_images else None
    return Preprocessing.parse(contract, channels, (height, width), resize=resize)


def _precision_warnings(model: Any) -> tuple[str, ...]:
    """What is said about models that do not compute in float32, as the artifacts do."""
    dtypes = sorted({layer.compute_dtype for layer in model._flatten_layers()} - {"float32"})  # noqa: SLF001 - Keras' only recursive listing
    return tuple(
        f"the model computes in {dtype}, the artifacts in float32: the proof says how far they are apart"
        for dtype in dtypes
    )
