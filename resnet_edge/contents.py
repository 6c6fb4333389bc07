"""What a bundle holds, opened: its contract and its graphs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from resnet_edge import bundle as bundles
from resnet_edge.converters import ConversionSettings
from resnet_edge.errors import ModelRejectedError

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.graph import Graph
    from resnet_edge.manifest import Manifest, ReferenceRecord

FINETUNED = "finetuned"
"""Format of the reference record of a graph that was pruned or clustered."""


def full_contract(manifest: Manifest) -> Preprocessing:
    """Everything between an image's pixels and what the model as the user brought it takes."""
    from resnet_edge.data.preprocessing import Preprocessing

    return Preprocessing.from_json(manifest.preprocessing)


def artifact_contract(manifest: Manifest) -> Preprocessing:
    """What is done to an image before the artifacts see it."""
    contract = full_contract(manifest)
    return contract.folded() if manifest.fold_input else contract


def find_reference(manifest: Manifest, kind: str) -> ReferenceRecord | None:
    """The record of the float model in one of its forms."""
    return next((record for record in manifest.reference if record.format == kind), None)


def load_imported(folder: Path, manifest: Manifest) -> Graph:
    """The graph as it was imported, before any pass.

    Raises:
        ModelRejectedError: There is none, or it is not what the export wrote.
    """
    from resnet_edge.graph.serialization import load_graph

    record = find_reference(manifest, "graph")
    if record is None:
        raise ModelRejectedError("the bundle has no graph", next_step="export the model again")
    check_digest(folder, record)
    return load_graph(folder / record.path)


def fold(imported: Graph, manifest: Manifest) -> Graph:
    """The folded graph, which every quantized artifact is made from."""
    from resnet_edge.passes import run_passes

    return run_passes(imported, preprocessing=full_contract(manifest) if manifest.fold_input else None).graph


def load_folded(folder: Path, manifest: Manifest, imported: Graph | None = None) -> Graph:
    """The folded graph that the bundle's artifacts are made from: the user's, or what training made of it.

    Args:
        folder: The bundle.
        manifest: Its manifest.
        imported: The graph before any pass, if it is at hand.

    Raises:
        ModelRejectedError: It is not there, or is not what was written.
    """
    from resnet_edge.graph.serialization import load_graph

    record = find_reference(manifest, FINETUNED)
    if record is None:
        return fold(load_imported(folder, manifest) if imported is None else imported, manifest)
    check_digest(folder, record)
    return load_graph(folder / record.path)


def conversion_settings(
    manifest: Manifest, *, onnx_activations: Literal["uint8", "int8"] = "uint8"
) -> ConversionSettings:
    """How the bundle's artifacts are laid out."""
    return ConversionSettings(
        batch=manifest.input.shape[0],
        opset=manifest.opset,
        onnx_layout=manifest.onnx_layout,
        onnx_activations=onnx_activations,
        metadata={
            "labels": "\n".join(manifest.labels),
            "preprocessing": json.dumps(dict(manifest.preprocessing), sort_keys=True),
        },
    )


def check_digest(folder: Path, record: ReferenceRecord) -> None:
    """See that a form of the float model is what the export wrote.

    Raises:
        ModelRejectedError: It is gone or was changed.
    """
    path = folder / record.path
    what = "graph" if record.format in ("graph", FINETUNED) else "float model"
    if not path.exists() or bundles.digest(path) != record.sha256:
        raise ModelRejectedError(
            f"the bundle's {what} was changed after the export"
            if path.exists()
            else f"the bundle lacks its {what}",
            where=record.path,
            next_step="export the model again",
        )
