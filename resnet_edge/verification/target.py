"""What is verified: the artifacts of a bundle, or a file of another tool, and the float model beside them."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from resnet_edge import bundle as bundles
from resnet_edge.contents import artifact_contract, check_digest, find_reference, full_contract, load_folded
from resnet_edge.errors import ModelRejectedError, UsageError
from resnet_edge.manifest import read_manifest
from resnet_edge.quantization.spec import Quantized
from resnet_edge.verification.against import FloatModel, open_against

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.graph import Graph
    from resnet_edge.manifest import ArtifactRecord, Manifest
    from resnet_edge.pipeline import ExportOptions


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An artifact to verify.

    Attributes:
        path: The file or folder.
        format: Converter's name.
        precision: ``fp32``, a recipe, or what a foreign file's content comes to.
        size: Bytes.
        record: What the bundle says of it; None for a foreign file.
        step: The scale of an integer output of a foreign file; a bundle's is in the spec.
    """

    path: Path
    format: str
    precision: str
    size: int
    record: ArtifactRecord | None = None
    step: float | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name


class Target(abc.ABC):
    """What is verified.

    Attributes:
        name: The bundle's or file's.
        model_name: The model as reports call it.
        candidates: The artifacts.
        contract: Everything between an image's pixels and the float model's input.
        artifact_contract: What is done to an image before the artifacts see it.
        classes: Outputs an image.
        labels: Names of the classes; empty when not known.
        reference: What runs the float model.
        half: The float model itself computes in float16.
        tuned: The artifacts' weights were pruned or clustered, and are not the float model's.
        notes: What the user should know.
        cache: The folder where the reference's outputs are kept; None to keep none.
        key: Identifies the float model, for that cache.
    """

    name: str
    model_name: str
    candidates: tuple[Candidate, ...]
    contract: Preprocessing
    artifact_contract: Preprocessing
    classes: int
    labels: tuple[str, ...]
    reference: str
    half: bool = False
    tuned: bool = False
    notes: tuple[str, ...] = ()
    cache: Path | None = None
    key: str = ""

    @property
    @abc.abstractmethod
    def model(self) -> FloatModel:
        """The float model, ready to run; loading it takes seconds, so not before it is needed."""

    @property
    @abc.abstractmethod
    def folded(self) -> Graph | None:
        """The graph that artifacts are written from; None where it is not known."""

    @abc.abstractmethod
    def quantized(self, candidate: Candidate) -> Quantized | None:
        """The graph of an artifact with its spec and integers; None where they are not known.

        Raises:
            ModelRejectedError: The spec or the integers cannot be read.
        """


class BundleTarget(Target):
    """A bundle.

    Args:
        folder: It.
        patterns: Names of artifacts, with wildcards; none for all.

    Raises:
        UsageError: No artifact has such a name.
        ModelRejectedError: The manifest cannot be read, an artifact is gone, or the float model is not what
            the manifest says.
    """

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        manifest = read_manifest(folder)
        self.folder, self.manifest = folder, manifest
        self.name, self.model_name = str(folder), manifest.model.name
        self.candidates = _choose(folder, manifest, patterns)
        self.contract, self.artifact_contract = full_contract(manifest), artifact_contract(manifest)
        self.classes = manifest.output.shape[-1] or 0
        self.labels = manifest.labels
        self.half = manifest.model.half
        self.tuned = manifest.was("prune") or manifest.was("cluster")
        self.cache = folder
        reference = find_reference(manifest, "savedmodel") or find_reference(manifest, "keras")
        if reference:  # also where its outputs are kept from the last time, and it will not be loaded
            check_digest(folder, reference)
        self.key = reference.sha256 if reference else ""
        framework = "TensorFlow" if reference and reference.format == "savedmodel" else "Keras"
        self.reference = f"{reference.path} in {framework}" if reference else "none"
        self._kept: dict[str, Quantized] = {}

    @cached_property
    def model(self) -> FloatModel:
        """See the base class."""
        from resnet_edge.pipeline import ExportOptions

        return open_against(self.folder, ExportOptions())

    @cached_property
    def folded(self) -> Graph | None:
        """See the base class; a bundle exported with ``--no-fold`` has float artifacts of another graph."""
        return load_folded(self.folder, self.manifest)

    def quantized(self, candidate: Candidate) -> Quantized | None:
        """See the base class."""
        from resnet_edge.quantization.storage import load_quantized

        record, folded = candidate.record, self.folded
        if record is None or folded is None:
            return None
        if not record.spec and not any(each.name == "fold_batchnorm" for each in self.manifest.passes):
            return None
        if record.spec not in self._kept:
            files = self.folder / record.spec, self.folder / record.integers
            self._kept[record.spec] = (
                load_quantized(*files, folded) if record.spec else Quantized.in_float(folded)
            )
        return self._kept[record.spec]


def _choose(folder: Path, manifest: Manifest, patterns: Sequence[str]) -> tuple[Candidate, ...]:
    """The artifacts whose names match any of the patterns, in the manifest's order."""
    names = [record.path for record in manifest.artifacts]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                "no artifact has such a name",
                where=f"--artifact {pattern}",
                allowed=", ".join(names),
                next_step="correct the name; * stands for anything",
            )
    chosen = [
        record
        for record in manifest.artifacts
        if not patterns or any(fnmatchcase(record.path, pattern) for pattern in patterns)
    ]
    for record in chosen:
        if not (folder / record.path).exists():
            raise ModelRejectedError(
                "the bundle lacks an artifact that its manifest lists",
                where=str(folder / record.path),
                next_step="export or quantize again, or choose others with --artifact",
            )
    return tuple(
        Candidate(
            path=folder / record.path,
            format=record.format,
            precision=record.precision,
            size=record.size,
            record=record,
        )
        for record in chosen
    )


class ForeignTarget(Target):
    """A file that any tool made, and the model that it is meant to be.

    Args:
        path: The file.
        against: A registry name, a model file or a bundle.
        options: Weights, preprocessing and the like for that model; ``fold_input``: the file takes pixels.

    Raises:
        UsageError: There is no such model.
        ModelRejectedError: File or model cannot be used, or do not fit each other.
        DependencyMissingError: The file's runtime is not installed.
    """

    def __init__(self, path: Path, against: str, options: ExportOptions) -> None:
        from resnet_edge.verification.foreign import check_match, open_foreign

        file, model = open_foreign(path), open_against(against, replace(options, fold_input=False))
        self.name = self.model_name = path.name
        self.contract = self.artifact_contract = model.preprocessing
        if options.fold_input:
            self.artifact_contract = self.contract.folded()
        self.classes, self.labels, self.half = model.classes, model.labels, model.half
        size = bundles.size(path)
        self.candidates = (
            Candidate(
                path=path, format=file.format, precision=file.precision, size=size, step=file.output_step
            ),
        )
        self.notes = (file.describe(), *model.warnings, *check_match(file, model, self.artifact_contract))
        self.reference = f"{model.name} in {model.engine}"
        self._model = model

    @property
    def model(self) -> FloatModel:
        """See the base class."""
        return self._model

    @property
    def folded(self) -> None:
        """See the base class: nothing says how the file was made."""
        return

    def quantized(self, candidate: Candidate) -> None:
        """See the base class: nothing says how the file was made."""


def open_target(
    place: str | Path, against: str | None, patterns: Sequence[str], options: ExportOptions
) -> Target:
    """What ``verify`` was pointed at.

    Raises:
        UsageError: It is neither a bundle nor a file, or ``--against`` is missing or out of place.
    """
    from pathlib import Path

    path = Path(place)
    if path.is_file():
        if against is None:
            raise UsageError(
                "a file by itself says nothing about the model that it was made from",
                where=str(path),
                allowed="a .keras or .h5 file, a registry name, or a bundle",
                next_step="name that model: --against MODEL",
            )
        if patterns:
            raise UsageError("--artifact goes with a bundle", where=str(path), next_step="leave it out")
        return ForeignTarget(path, against, options)
    if against is not None:
        raise UsageError(
            "a bundle holds its float model",
            where=f"--against {against}",
            next_step="leave out --against, or give a .tflite or .onnx file instead of the bundle",
        )
    from dataclasses import fields

    options.refuse([each.name for each in fields(options) if each.name != "command"], "a bundle")
    if not path.exists():
        raise UsageError(
            "there is nothing of that name", where=str(path), allowed="a bundle, or a .tflite or .onnx file"
        )
    return BundleTarget(path, patterns)
