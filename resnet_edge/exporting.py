"""The steps of an export, in the order in which the pipeline takes them."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from resnet_edge import bundle as bundles
from resnet_edge.converters import (
    ConversionSettings,
    Converter,
    installed_formats,
    load_converter,
    load_plugin,
)
from resnet_edge.errors import ConversionFailedError, ModelRejectedError, UsageError
from resnet_edge.manifest import (
    ArtifactRecord,
    Manifest,
    ModelRecord,
    ReferenceRecord,
    TensorRecord,
    write_manifest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.engines import Engine
    from resnet_edge.graph import Graph
    from resnet_edge.models.source import Source
    from resnet_edge.passes import PassesResult
    from resnet_edge.pipeline import ExportOptions
    from resnet_edge.stages import Stages
    from resnet_edge.verification.proof import Reference

_VERSIONED = ("resnet-edge", "tensorflow", "keras", "onnx", "onnxruntime", "ai-edge-litert", "numpy")


def choose_converters(options: ExportOptions) -> tuple[dict[str, Converter], tuple[str, ...]]:
    """The converters asked for by format, and warnings; loaded first, so that a typo costs nothing.

    Raises:
        UsageError: A format that nobody offers, or a batch below 1.
        ConversionFailedError: A format asked for by name whose plugin does not load.
    """
    if options.batch is not None and options.batch < 1:
        raise UsageError(
            "a batch holds at least one image",
            where="--batch",
            found=str(options.batch),
            allowed="1 or more, or dynamic",
        )
    if options.formats and "all" not in options.formats:
        return {name: load_converter(name) for name in dict.fromkeys(options.formats)}, ()
    plugins = [load_plugin(point) for point in installed_formats().values()]
    warnings = tuple(
        f"format {plugin.format!r} is left out: its converter does not load "
        f"({plugin.distribution}: {plugin.error})"
        for plugin in plugins
        if plugin.converter is None
    )
    return {plugin.format: plugin.converter for plugin in plugins if plugin.converter is not None}, warnings


def load_framework() -> None:
    """Import TensorFlow and Keras, so that the stages after it take only their own time."""
    import keras  # noqa: F401


def open_source(model: Any, options: ExportOptions) -> Source:
    """The user's model with its weights (see ``resnet_edge.models.source``)."""
    from resnet_edge.models.source import open_source as open_model

    return open_model(model, options)


def import_graph(source: Source, options: ExportOptions) -> Graph:
    """The model's graph as the user wrote it, before any pass."""
    from resnet_edge.graph.importing import import_keras

    return import_keras(source.model, input_shape=options.input_shape)


def choose_labels(source: Source, graph: Graph, options: ExportOptions) -> Source:
    """The source with the user's labels, if there are any.

    Raises:
        DataRejectedError: They are not one a class.
    """
    from resnet_edge.data.labels import read_labels

    return (
        source
        if options.labels is None
        else replace(source, labels=read_labels(options.labels, graph.classes))
    )


def run_passes(imported: Graph, source: Source, options: ExportOptions) -> PassesResult:
    """The graph that is written."""
    from resnet_edge.passes import run_passes as run

    preprocessing = source.preprocessing if options.fold_input else None
    return run(imported, fold=options.fold, preprocessing=preprocessing)


def run_reference(source: Source, imported: Graph) -> Reference:
    """The user's own model at work on seeded images."""
    from resnet_edge.verification.proof import run_reference as run

    return run(source.model, imported, source.preprocessing)


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes and proves the artifacts of one bundle, then all that goes with them.

    Attributes:
        folder: The bundle in the making.
        source: The user's model.
        passes: The graph to write, and the reports about it.
        options: What the user asked for.
        reference: What the artifacts are proven against.
        stages: Times the work.
    """

    folder: Path
    source: Source
    passes: PassesResult
    options: ExportOptions
    reference: Reference
    stages: Stages

    @property
    def _graph(self) -> Graph:
        return self.passes.graph

    def write(self, name: str, converter: Converter) -> ArtifactRecord:
        """Write one artifact and prove it.

        Raises:
            ConversionFailedError: It cannot be written, or computes something else than the model.
        """
        from resnet_edge.verification.proof import prove

        path = self.folder / f"{self.source.name}-fp32{converter.suffix}"
        with self.stages.stage(f"write {name}"):
            converter.convert(self._graph, path, self._settings())
        with self.stages.stage(f"prove {name}"), self._opened(converter, path) as engine:
            proof = prove(
                engine,
                self.reference,
                self._graph,
                artifact=path.name,
                fold_input=self.options.fold_input,
            )
        return ArtifactRecord(
            path=path.name,
            format=name,
            precision="fp32",
            size=bundles.size(path),
            sha256=bundles.digest(path),
            proof=proof,
        )

    def _opened(self, converter: Converter, path: Path) -> Engine:
        """What was just written, in its runtime; a file of ours that it refuses is our failure."""
        try:
            return converter.open(path, threads=_cores())
        except ModelRejectedError as error:
            raise ConversionFailedError(
                f"{path.name} was written, but its runtime does not accept it",
                where=error.where,
                found=error.found or error.what,
                next_step="a defect of resnet-edge or of the runtime: please report it with the model",
            ) from error

    def _settings(self) -> ConversionSettings:
        return ConversionSettings(
            batch=self.options.batch,
            opset=self.options.opset,
            onnx_layout=self.options.onnx_layout,
            metadata={
                "labels": "\n".join(self.source.labels),
                "preprocessing": json.dumps(self.source.preprocessing.to_json(), sort_keys=True),
            },
        )

    def finish(self, artifacts: tuple[ArtifactRecord, ...], warnings: tuple[str, ...]) -> Manifest:
        """Write what goes with the artifacts; the manifest last."""
        with self.stages.stage("keep the reference"):
            references = self._keep_reference()
        self._write_device_scripts(artifacts)
        manifest = self._manifest(artifacts, references, warnings)
        write_manifest(self.folder, manifest)
        return manifest

    def _keep_reference(self) -> tuple[ReferenceRecord, ...]:
        """The user's float model: its graph, a Keras file, and a SavedModel where that file needs code."""
        from resnet_edge.graph.serialization import save_graph

        graph_file = self.folder / "graph.safetensors"
        save_graph(self.reference.imported, graph_file)
        kept = [_reference_record(graph_file, "graph")]
        keras_file = self.folder / "reference.keras"
        if self.source.path is not None and self.source.path.suffix == ".keras":
            shutil.copyfile(self.source.path, keras_file)
        else:
            self.source.model.save(keras_file)
        kept.append(_reference_record(keras_file, "keras"))
        if self.source.needs_code:
            folder = self.folder / "reference-savedmodel"
            self.source.model.export(folder, verbose=False)
            kept.append(_reference_record(folder, "savedmodel"))
        return tuple(kept)

    def _write_device_scripts(self, artifacts: tuple[ArtifactRecord, ...]) -> None:
        from resnet_edge.data.device_scripts import render_device_script

        kinds: tuple[Literal["tflite", "onnx"], ...] = ("tflite", "onnx")
        paths = {artifact.format: artifact.path for artifact in artifacts}
        for kind in kinds:
            if kind in paths:
                script = render_device_script(
                    kind,
                    paths[kind],
                    self.source.preprocessing,
                    labels=self.source.labels,
                    layout=self.options.onnx_layout,
                    fold_input=self.options.fold_input,
                    batch=self.options.batch,
                )
                (self.folder / f"run_{kind}.py").write_text(script, encoding="utf-8")

    def _manifest(
        self,
        artifacts: tuple[ArtifactRecord, ...],
        references: tuple[ReferenceRecord, ...],
        warnings: tuple[str, ...],
    ) -> Manifest:
        graph = self._graph
        return Manifest(
            model=ModelRecord(
                name=self.source.name,
                origin=self.source.origin,
                digest=self.source.digest,
                weights=self.source.weights,
                weights_digest=self.source.weights_digest,
                custom_objects_digest=self.source.custom_objects_digest,
                parameters=graph.parameters,
                macs=graph.macs,
            ),
            preprocessing=self.source.preprocessing.to_json(),
            fold_input=self.options.fold_input,
            labels=self.source.labels,
            input=TensorRecord(name="image", shape=(self.options.batch, *graph.input_shape)),
            output=TensorRecord(name=graph.output_name, shape=(self.options.batch, graph.classes)),
            reference=references,
            artifacts=artifacts,
            passes=tuple(asdict(report) for report in self.passes.reports),
            warnings=(*warnings, *self.source.warnings),
            versions={name: importlib.metadata.version(name) for name in _VERSIONED},
            command=self.options.command,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )


def _reference_record(path: Path, kind: str) -> ReferenceRecord:
    return ReferenceRecord(path=path.name, format=kind, size=bundles.size(path), sha256=bundles.digest(path))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
