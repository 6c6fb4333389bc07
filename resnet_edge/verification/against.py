"""The float model that a file is compared with: built, loaded or kept in a bundle; its framework runs it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from resnet_edge.contents import check_digest, find_reference, full_contract
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import ModelRejectedError
from resnet_edge.exporting import load_framework
from resnet_edge.manifest import read_manifest
from resnet_edge.verification.proof import computes_in_half

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.graph.geometry import Shape
    from resnet_edge.manifest import Manifest, TensorRecord
    from resnet_edge.pipeline import ExportOptions

Run: TypeAlias = "Callable[[NDArray[np.float32]], NDArray[np.float32]]"


@dataclass(frozen=True, kw_only=True)
class FloatModel:
    """The float model that a file is compared with.

    Attributes:
        name: For people.
        engine: What runs it: ``Keras 3.15.1``.
        preprocessing: The contract between pixels and its input.
        image_shape: (height, width, channels).
        classes: Outputs an image.
        labels: Names of the classes; empty when not known.
        half: Whether it computes in float16 itself.
        warnings: What the user should know.
        run: Outputs (N, classes) for model inputs (N, height, width, channels).
    """

    name: str
    engine: str
    preprocessing: Preprocessing
    image_shape: Shape
    classes: int
    labels: tuple[str, ...]
    half: bool
    warnings: tuple[str, ...]
    run: Run


def open_against(model: str | Path, options: ExportOptions) -> FloatModel:
    """The float model that ``--against`` names: a registry name, a model file, or a bundle.

    Args:
        model: As the user gave it.
        options: Weights, shapes and preprocessing, as ``export`` takes them.

    Raises:
        UsageError: There is no such model, or an option does not go with this kind of model.
        ModelRejectedError: The file or the weights cannot be used.
        DependencyMissingError: The weights need a download or package that is not there.
    """
    from resnet_edge import bundle as bundles

    bundle = bundles.bundle_at(model)
    if bundle is not None:
        options.refuse(
            [each.name for each in fields(options) if each.name != "command"], "a bundle, which has its own"
        )
        return _from_bundle(bundle)
    load_framework()
    import keras
    import numpy as np

    from resnet_edge.data.labels import read_labels
    from resnet_edge.graph.importing import image_shape
    from resnet_edge.models.source import open_source

    source = open_source(model, options)
    shape = image_shape(source.model, options.input_shape)
    run = compile_keras(source.model, shape)
    classes = _classes(run(np.zeros((1, *shape), np.float32)), source.name)
    labels = source.labels if options.labels is None else read_labels(options.labels, classes)
    return FloatModel(
        name=source.name if source.path is None else source.path.name,
        engine=f"Keras {keras.__version__}",
        preprocessing=source.preprocessing,
        image_shape=shape,
        classes=classes,
        labels=labels,
        half=computes_in_half(source.model),
        warnings=source.warnings,
        run=run,
    )


def _from_bundle(folder: Path) -> FloatModel:
    """The float model that a bundle keeps, as it was before anything was folded into the artifacts."""
    manifest = read_manifest(folder)
    run, engine = _kept_model(folder, manifest)
    return FloatModel(
        name=f"{manifest.model.name} of {folder.name}",
        engine=engine,
        preprocessing=full_contract(manifest),
        image_shape=_sizes(manifest.input),
        classes=_sizes(manifest.output)[0],
        labels=manifest.labels,
        half=manifest.model.half,
        warnings=manifest.warnings,
        run=run,
    )


def _kept_model(folder: Path, manifest: Manifest) -> tuple[Run, str]:
    """What runs a bundle's float model, and its name.

    A SavedModel is kept where Keras would need the user's code to load the model.
    """
    record = find_reference(manifest, "savedmodel") or find_reference(manifest, "keras")
    if record is None:
        raise ModelRejectedError(
            "the bundle has no float model", where=str(folder), next_step="export it again"
        )
    check_digest(folder, record)
    if record.format == "savedmodel":
        from resnet_edge.engines.savedmodel import SavedModelEngine

        return SavedModelEngine(folder / record.path, threads=usable_cores()).run, "TensorFlow"
    load_framework()
    import keras

    from resnet_edge.models.loading import load_model_file

    model = load_model_file(folder / record.path).model
    return compile_keras(model, _sizes(manifest.input)), f"Keras {keras.__version__}"


def _sizes(tensor: TensorRecord) -> Shape:
    """A tensor's shape for one image."""
    return tuple(size for size in tensor.shape[1:] if size is not None)


def compile_keras(model: Any, image_shape: Shape) -> Run:
    """What a Keras model computes, as one TensorFlow function.

    Args:
        model: The ``keras.Model``.
        image_shape: (height, width, channels).

    Returns:
        Outputs (N, classes), float32, for model inputs (N, height, width, channels).
    """
    import numpy as np

    from resnet_edge.engines.batching import run_in_batches
    from resnet_edge.tensorflow_import import tf  # deferred: takes seconds

    declared = getattr(model, "inputs", None)
    fixed = declared[0].shape[0] if declared else None

    @tf.function(input_signature=[tf.TensorSpec((fixed, *image_shape), tf.float32)])  # type: ignore[untyped-decorator]
    def compute(images: Any) -> Any:
        return tf.cast(model(images, training=False), tf.float32)

    def run_batch(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(compute(tf.constant(images)))

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return run_in_batches(inputs, image_shape=image_shape, batch=fixed, run=run_batch)

    return run


def _classes(outputs: NDArray[np.float32], model: str) -> int:
    """How many classes a model has that gave these outputs for one image."""
    if outputs.ndim != 2:
        raise ModelRejectedError(
            "the model does not give one value a class",
            where=model,
            found=f"an output of shape {outputs.shape} for one image",
            allowed="(N, classes)",
            next_step="give a classifier",
        )
    return int(outputs.shape[1])
