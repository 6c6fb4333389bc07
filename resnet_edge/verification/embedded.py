"""What a file says about itself - its preprocessing, its labels - beside what the bundle's manifest says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from resnet_edge.manifest import Manifest


def embedded_differences(artifact: Path, format_: str, manifest: Manifest) -> list[str]:
    """Where an artifact's own metadata contradicts the manifest, one phrase each.

    A device takes the one or the other, so that they have to agree. A file that says nothing contradicts
    nothing: converters of other distributions need not write metadata.

    Args:
        artifact: The file or folder.
        format_: Its converter's name.
        manifest: Of its bundle.
    """
    try:
        stated = _metadata(artifact, format_)
    except (ModelRejectedError, OSError, ValueError):  # damaged: whatever reads the whole of it says so
        return []
    return [*_preprocessing(stated, manifest), *_labels(stated, manifest)]


def _preprocessing(stated: Mapping[str, str], manifest: Manifest) -> Iterator[str]:
    try:
        own = json.loads(stated.get("preprocessing", "{}"))
    except ValueError:
        own = None
    if not isinstance(own, dict):
        yield "its own record of the preprocessing is damaged"
        return
    for name, value in own.items():
        if value != manifest.preprocessing.get(name):
            wanted = manifest.preprocessing.get(name)
            yield f"it was written for the preprocessing {name} {value}, the manifest says {wanted}"


def _labels(stated: Mapping[str, str], manifest: Manifest) -> Iterator[str]:
    # Not splitlines(): that also breaks at characters such as U+2028, which may stand in a name.
    own = stated.get("labels", "").split("\n") if stated.get("labels") else []
    if own and own != list(manifest.labels):
        pairs = zip(own, manifest.labels, strict=False)
        place = next(
            (number for number, (ours, theirs) in enumerate(pairs) if ours != theirs),
            min(len(own), len(manifest.labels)),
        )
        ours, theirs = (
            repr(labels[place]) if place < len(labels) else "missing" for labels in (own, manifest.labels)
        )
        yield f"its labels are not the manifest's: class {place} is {ours}, the manifest says {theirs}"


def _metadata(artifact: Path, format_: str) -> Mapping[str, str]:
    """The texts that a file of a known format keeps."""
    # Each format's packages are imported only when a file of it is looked into.
    if format_ == "tflite":
        from resnet_edge.inspection.tflite_file import read_tflite

        return {name: content.decode() for name, content in read_tflite(artifact).metadata.items()}
    if format_ == "onnx":
        from onnx import ModelProto

        from resnet_edge.inspection.onnx_file import rejecting_damaged

        with rejecting_damaged(artifact):
            model = ModelProto.FromString(artifact.read_bytes())
        return {entry.key: entry.value for entry in model.metadata_props}
    if format_ == "savedmodel":
        from resnet_edge.engines.savedmodel import METADATA_FILE

        stated: dict[str, str] = json.loads((artifact / METADATA_FILE).read_text("utf-8")).get("metadata", {})
        return stated
    return {}
