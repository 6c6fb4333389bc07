"""``manifest.json``: what a bundle holds, where it came from and what was proven."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping  # noqa: TC003 - records are read by the types of their fields
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from resnet_edge.errors import ModelRejectedError
from resnet_edge.pass_reports import PassReport  # noqa: TC001 - records are read by the types of their fields
from resnet_edge.records import read_record

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_NAME = "manifest.json"

SCHEMA = 1
"""Raised when a reader of the older form would misread the newer one."""

_KIND = "resnet-edge bundle"


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The model as the user brought it.

    Attributes:
        name: Begins the artifacts' names.
        origin: ``registry`` or ``file``.
        digest: SHA-256 of the model file; empty for a registry model.
        weights: Where the weights came from: ``file``, ``random``, ``imagenet``, ``fashion-mnist`` or
            ``model`` (they were in the model file).
        weights_digest: SHA-256 of a weights file.
        custom_objects_digest: SHA-256 of the user's code that was needed to load it.
        parameters: Constants in the exported graph.
        macs: Multiply-accumulates for one image.
        half: Whether it computes in float16 or bfloat16 itself, and can be matched no closer than that.
    """

    name: str
    origin: str
    digest: str
    weights: str
    weights_digest: str
    custom_objects_digest: str
    parameters: int
    macs: int
    half: bool = False


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """An input or output: its name and shape in every artifact; None for an open batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class ProofRecord:
    """What an artifact computed in its runtime against the user's own model.

    Attributes:
        reference: What it was compared with.
        images: How many seeded images.
        max_abs_error: Largest difference of any output.
        max_abs_reference: Largest output of the reference.
        limit: What the difference may be.
    """

    reference: str
    images: int
    max_abs_error: float
    max_abs_reference: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """What a quantized artifact computed in its runtime against the float model.

    Attributes:
        source: Which images: ``held back`` from the calibration source, or ``calibration`` if none were left.
        images: How many.
        top1_agreement: Share (0 to 1) of images with the float prediction; ties go to the lowest index.
        sqnr_db: Signal to quantization noise ratio of the outputs in dB; None where they are equal.
        max_abs_error: Largest difference of any output.
    """

    source: str
    images: int
    top1_agreement: float
    sqnr_db: float | None
    max_abs_error: float


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord:
    """One exported file (or folder).

    Attributes:
        path: In the bundle.
        format: Which converter wrote it.
        precision: ``fp32``, or the recipe.
        size: Bytes.
        sha256: Of the file; of a folder, see ``resnet_edge.bundle.digest``.
        proof: For ``fp32``: against the user's own model.
        parity: For a recipe: against the float model.
        spec: For a recipe: the file with its scales.
        spec_sha256: That file's digest.
        integers: For a recipe: the file with its integers.
        integers_sha256: That file's digest.
    """

    path: str
    format: str
    precision: str
    size: int
    sha256: str
    proof: ProofRecord | None = None
    parity: ParityRecord | None = None
    spec: str = ""
    spec_sha256: str = ""
    integers: str = ""
    integers_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class HeldBackRecord:
    """Images of the calibration source that calibration did not see, kept to verify on without other data.

    Attributes:
        path: A ``.npz`` with ``images``, perhaps ``labels``, and ``calibrated``: hashes of the images that
            calibration did see.
        source: Where they are from, as the user named it.
        images: How many; 0 where calibration took all there were.
        sha256: Of the file.
    """

    path: str
    source: str
    images: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ReferenceRecord:
    """The user's float model as kept in the bundle.

    ``keras`` is the model itself, ``savedmodel`` what Keras' own export made of it (where loading the first
    needs code), ``graph`` the imported graph before any pass, from which other precisions are made;
    ``finetuned`` the folded graph that pruning or clustering left, which takes its place for that.
    """

    path: str
    format: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FinetuneRecord:
    """One training after the export.

    Attributes:
        method: What it was for.
        recipe: For ``qat``: the recipe whose artifacts hold what was learned.
        layers: For the others: the layers worked on, whose weights are in every artifact.
        sparsity: For ``prune``: share of these layers' weights that is zero.
        clusters: For ``cluster``: distinct values that each of these layers has at most.
        data: Where the images are from, as the user named it.
        images: How many it was trained on.
        validation_images: How many it was validated on.
        labelled: Whether accuracies are by labels, not by agreement with the float model.
        loss: What was minimized.
        learning_rate: Its peak.
        batch: Images a step.
        seed: Of everything random.
        epochs: How many were trained.
        best_epoch: The one whose weights were kept; 0 for those from before the training.
        loss_before: On the validation images, before any training.
        loss_after: With the weights that were kept.
        accuracy_before: Share (0 to 1) of right predictions among the validation images before any training.
        accuracy_after: The same with the weights that were kept.
        same_prediction: For ``qat``: share of validation images on which the exported integers, executed
            exactly, predict what the trained model does.
        within_a_step: For ``qat``: share of outputs that differ by one step or less.
    """

    method: Literal["qat", "prune", "cluster"]
    recipe: str = ""
    layers: tuple[str, ...] = ()
    sparsity: float | None = None
    clusters: int | None = None
    data: str
    images: int
    validation_images: int
    labelled: bool
    loss: str
    learning_rate: float
    batch: int
    seed: int
    epochs: int
    best_epoch: int
    loss_before: float
    loss_after: float
    accuracy_before: float
    accuracy_after: float
    same_prediction: float | None = None
    within_a_step: float | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of it; see the attributes' own records.

    Attributes:
        model: The model.
        preprocessing: The contract between pixels and the model's input.
        fold_input: Whether the contract's normalization is inside the artifacts.
        labels: Names of the classes by index; empty when not known.
        input: The artifacts' input, NHWC (an NCHW ONNX file says so itself).
        output: The artifacts' output.
        opset: Operator set of the ONNX files.
        onnx_layout: Layout of the ONNX files' input.
        reference: The float model that the artifacts are measured against.
        artifacts: The exported files.
        passes: Reports of the passes over the graph, the fold report among them.
        warnings: What the user was told when the model was exported.
        held_back: Of the last calibration.
        calibration_notes: What the last calibration found worth telling.
        finetuned: The trainings behind the artifacts, the latest last.
        versions: Packages that had a hand in it.
        command: The command line, or the call.
        created: Time of writing, UTC, ISO 8601.
    """

    model: ModelRecord
    preprocessing: Mapping[str, Any]
    fold_input: bool
    labels: tuple[str, ...]
    input: TensorRecord
    output: TensorRecord
    opset: int
    onnx_layout: Literal["nchw", "nhwc"]
    reference: tuple[ReferenceRecord, ...]
    artifacts: tuple[ArtifactRecord, ...]
    passes: tuple[PassReport, ...]
    warnings: tuple[str, ...]
    held_back: HeldBackRecord | None = None
    calibration_notes: tuple[str, ...] = ()
    finetuned: tuple[FinetuneRecord, ...] = ()
    versions: Mapping[str, str]
    command: tuple[str, ...]
    created: str

    def was(self, method: str) -> bool:
        """Whether the float weights went through ``prune`` or ``cluster``."""
        return any(record.method == method for record in self.finetuned)

    def to_json(self) -> dict[str, Any]:
        """As plain values, in a fixed order."""
        return {"kind": _KIND, "schema": SCHEMA, **dataclasses.asdict(self)}


def _parse(values: Mapping[str, Any], path: Path) -> Manifest:
    """The manifest that :meth:`Manifest.to_json` gave."""
    try:
        manifest = read_record(Manifest, values)
        _check_names(manifest)
        _check_shapes(manifest)
        _check_evidence(manifest)
        if "half" not in values["model"]:  # of a version that did not say
            model = dataclasses.replace(manifest.model, half=_proven_in_half(manifest.artifacts))
            manifest = dataclasses.replace(manifest, model=model)
    except ValueError as error:
        raise ModelRejectedError(
            "the bundle's manifest is damaged",
            where=str(path),
            found=str(error),
            next_step="export the model again",
        ) from error
    return manifest


def _proven_in_half(artifacts: tuple[ArtifactRecord, ...]) -> bool:
    """Whether a proof's limit is the wide one: 2e-2 of the largest output, at least of 1, and not 1e-4."""
    proofs = (record.proof for record in artifacts)
    return any(proof.limit > 1e-3 * max(1.0, proof.max_abs_reference) for proof in proofs if proof)


def _check_names(manifest: Manifest) -> None:
    """See that no name leads out of the bundle: files are written and removed under these names."""
    artifacts = (record.path for record in manifest.artifacts)
    references = (record.path for record in manifest.reference)
    specs = (name for record in manifest.artifacts for name in (record.spec, record.integers) if name)
    images = (manifest.held_back.path,) if manifest.held_back else ()
    for name in (manifest.model.name, *artifacts, *references, *specs, *images):
        if name in {"", ".", ".."} or "/" in name or "\\" in name:
            raise ValueError(f"{name!r} is no file name")


def _check_shapes(manifest: Manifest) -> None:
    """See that images and classes have the dimensions that every reader takes them to have."""
    for name, tensor, dimensions in (("input", manifest.input, 4), ("output", manifest.output, 2)):
        _, *sizes = tensor.shape or (None,)
        if len(tensor.shape) != dimensions or not all(size and 0 < size < 2**31 for size in sizes):
            raise ValueError(f"{name}.shape is {list(tensor.shape)}, not {dimensions} dimensions")


def _check_evidence(manifest: Manifest) -> None:
    """See that every artifact was run, as no bundle was made without."""
    for index, record in enumerate(manifest.artifacts):
        if record.proof is None and record.parity is None:
            raise ValueError(f"artifacts[{index}] has neither a proof nor a parity")


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``: the last file of a bundle."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    (bundle / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def is_manifest(path: Path) -> bool:
    """Whether a file is a bundle's manifest, of any schema."""
    try:
        return _load(path).get("kind") == _KIND
    except (OSError, ValueError):
        return False


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        ModelRejectedError: There is none, it is damaged, or a newer version of resnet-edge wrote it.
    """
    path = bundle / MANIFEST_NAME
    try:
        values = _load(path)
    except (OSError, ValueError) as error:
        raise _no_bundle(path, str(error)) from error
    if values.get("kind") != _KIND or not isinstance(values.get("schema"), int):
        raise _no_bundle(path, "another kind of document")
    if values["schema"] > SCHEMA:
        raise ModelRejectedError(
            "a newer resnet-edge wrote this bundle",
            where=str(path),
            found=f"schema {values['schema']}",
            allowed=f"schema {SCHEMA}",
            next_step="upgrade resnet-edge",
        )
    return _parse(values, path)


def _no_bundle(path: Path, found: str) -> ModelRejectedError:
    if (path.parent / "saved_model.pb").exists():
        return ModelRejectedError(
            "this folder is a SavedModel, not a bundle",
            where=str(path.parent),
            next_step="inspect the bundle that it is from; TensorFlow's own "
            f"`saved_model_cli show --all --dir {path.parent}` shows its signatures",
        )
    return ModelRejectedError(
        "this folder is not a bundle",
        where=str(path),
        found=found,
        next_step="make one with: resnet-edge export MODEL -o BUNDLE",
    )


def _load(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"holds a {type(values).__name__}, not an object")  # noqa: TRY004 - as the parser's own
    return values
