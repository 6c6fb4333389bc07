"""The three verbs as functions: what the command line calls, and the Python API."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resnet_edge import bundle as bundles
from resnet_edge import exporting
from resnet_edge.manifest import Manifest, write_manifest
from resnet_edge.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Everything ``export`` can be told besides the model and the place.

    Attributes:
        formats: Names of installed converters; empty for all of them.
        weights: A file, ``imagenet`` or ``fashion-mnist``, for a registry model.
        input_shape: (height, width, channels).
        classes: Number of classes of a registry model.
        width: Factor on a registry model's channels.
        shortcut: ``A`` or ``B``, for the CIFAR families.
        preprocess: The contract between pixels and the model's input; None for the weights' own.
        labels: Text file, one class name a line.
        batch: Images a run; None for an open batch.
        fold: Whether batch norms are folded.
        fold_input: Whether the contract's normalization goes into the artifacts.
        opset: ONNX operator set.
        onnx_layout: Layout of the ONNX file's input.
        custom_objects: The user's Python file with the classes that the model file needs.
        allow_unsafe_code: Whether code inside the model file may run.
        command: What the manifest says was called.
    """

    formats: tuple[str, ...] = ()
    weights: str | None = None
    input_shape: tuple[int, int, int] | None = None
    classes: int | None = None
    width: float = 1.0
    shortcut: str | None = None
    preprocess: str | None = None
    labels: Path | None = None
    batch: int | None = 1
    fold: bool = True
    fold_input: bool = False
    opset: int = 17
    onnx_layout: Literal["nchw", "nhwc"] = "nchw"
    custom_objects: Path | None = None
    allow_unsafe_code: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A finished export.

    Attributes:
        bundle: The folder.
        manifest: What it holds.
        seconds: Wall-clock time by stage.
    """

    bundle: Path
    manifest: Manifest
    seconds: Mapping[str, float] = field(default_factory=dict)


def export(
    model: Any, bundle: str | Path, options: ExportOptions | None = None, stages: Stages | None = None
) -> ExportResult:
    """Export a model as a bundle: folded, written in every format asked for, and proven against Keras.

    Args:
        model: A registry name, a ``.keras`` or ``.h5`` file, or a ``keras.Model``.
        bundle: The folder to write; an older bundle there is replaced as a whole.
        options: Everything else.
        stages: Times the stages and may show them.

    Raises:
        UsageError: The options or the place make no sense.
        ModelRejectedError: The model, its weights or a layer cannot be used.
        ConversionFailedError: A file could not be written, or computes something else than the model; nothing
            is left behind.
    """
    options, stages, destination = options or ExportOptions(), stages or Stages(), Path(bundle)
    bundles.check_destination(destination)
    prepared = exporting.prepare(model, options, stages)
    with bundles.writing(destination) as folder:
        manifest = exporting.write(prepared, folder, stages)
        write_manifest(folder, manifest)
    return ExportResult(bundle=destination, manifest=manifest, seconds=stages.seconds)
