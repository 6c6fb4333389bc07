"""The steps of an export, in the order in which the pipeline takes them."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from resnet_edge import bundle as bundles
from resnet_edge.converters import (
    ConversionSettings,
    Converter,
    installed_formats,
    load_converter,
    load_plugin,
)
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import ConversionFailedError, ModelRejectedError, UsageError
from resnet_edge.manifest import Manifest, ModelRecord, TensorRecord
from resnet_edge.versions import installed_versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resnet_edge.engines import Engine
    from resnet_edge.graph import Graph
    from resnet_edge.manifest import ArtifactRecord, ReferenceRecord
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
    import resnet_edge.tensorflow_import  # noqa: F401


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
class Prepared:
    """A model ready to be written.

    Attributes:
        converters: What to write it with, by format.
        source: The user's model.
        passes: The graph to write, and the reports about it.
        reference: What the artifacts are proven against.
        options: What the user asked for.
        warnings: What the user should know.
    """

    converters: Mapping[str, Converter]
    source: Source
    passes: PassesResult
    reference: Reference
    options: ExportOptions
    warnings: tuple[str, ...]


def prepare(model: Any, options: ExportOptions, stages: Stages) -> Prepared:
    """Everything before the first file: open, import, fold, run in Keras."""
    with stages.stage("load TensorFlow"):
        converters, warnings = choose_converters(options)
        load_framework()
    with stages.stage("load the model"):
        source = open_source(model, options)
    with stages.stage("import the graph"):
        imported = import_graph(source, options)
        source = choose_labels(source, imported, options)
    with stages.stage("fold and fuse"):
        passes = run_passes(imported, source, options)
    with stages.stage("run the model in Keras"):
        reference = run_reference(source, imported)
    return Prepared(
        converters=converters,
        source=source,
        passes=passes,
        reference=reference,
        options=options,
        warnings=(*warnings, *source.warnings),
    )


def write(prepared: Prepared, folder: Path, stages: Stages) -> Manifest:
    """Write and prove the artifacts, then all that goes with them but the manifest, which is returned.

    Raises:
        ConversionFailedError: An artifact cannot be written, or computes something else than the model.
    """
    writer = Writer(folder=folder, prepared=prepared, stages=stages)
    artifacts = tuple(writer.write(name, converter) for name, converter in prepared.converters.items())
    return writer.finish(artifacts)


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes and proves the artifacts of one bundle, then all that goes with them.

    Attributes:
        folder: The bundle in the making.
        prepared: The model.
        stages: Times the work.
    """

    folder: Path
    prepared: Prepared
    stages: Stages

    def write(self, name: str, converter: Converter) -> ArtifactRecord:
        """Write one artifact and prove it.

        Raises:
            ConversionFailedError: It cannot be written, or computes something else than the model.
        """
        from resnet_edge.verification.proof import prove

        path = self.folder / f"{self.prepared.source.name}-fp32{converter.suffix}"
        with self.stages.stage(f"write {name}"):
            converter.convert(self.prepared.passes.graph, path, self._settings())
        with self.stages.stage(f"prove {name}"), self._opened(converter, path) as engine:
            proof = prove(
                engine,
                self.prepared.reference,
                self.prepared.passes.graph,
                artifact=path.name,
                fold_input=self.prepared.options.fold_input,
            )
        return bundles.float_record(path, name, proof)

    def _opened(self, converter: Converter, path: Path) -> Engine:
        """What was just written, in its runtime; a file of ours that it refuses is our failure."""
        try:
            return converter.open(path, threads=usable_cores())
        except ModelRejectedError as error:
            raise ConversionFailedError(
                f"{path.name} was written, but its runtime does not accept it",
                where=error.where,
                found=error.found or error.what,
                next_step="a defect of resnet-edge or of the runtime: please report it with the model",
            ) from error

    def _settings(self) -> ConversionSettings:
        return ConversionSettings(
            batch=self.prepared.options.batch,
            opset=self.prepared.options.opset,
            onnx_layout=self.prepared.options.onnx_layout,
            metadata={
                "labels": "\n".join(self.prepared.source.labels),
                "preprocessing": json.dumps(self.prepared.source.preprocessing.to_json(), sort_keys=True),
            },
        )

    def finish(self, artifacts: tuple[ArtifactRecord, ...]) -> Manifest:
        """Write what goes with the artifacts, and say what the manifest will hold."""
        with self.stages.stage("keep the reference"):
            references = self._keep_reference()
        self._write_device_scripts(artifacts)
        return self._manifest(artifacts, references)

    def _keep_reference(self) -> tuple[ReferenceRecord, ...]:
        """The user's float model: its graph, a Keras file, and a SavedModel where that file needs code."""
        from resnet_edge.graph.serialization import save_graph

        graph_file = self.folder / "graph.safetensors"
        save_graph(self.prepared.reference.imported, graph_file)
        kept = [bundles.reference_record(graph_file, "graph")]
        keras_file = self.folder / "reference.keras"
        if self.prepared.source.path is not None and self.prepared.source.path.suffix == ".keras":
            shutil.copyfile(self.prepared.source.path, keras_file)
        else:
            self.prepared.source.model.save(keras_file)
        kept.append(bundles.reference_record(keras_file, "keras"))
        if self.prepared.source.needs_code:
            folder = self.folder / "reference-savedmodel"
            self.prepared.source.model.export(folder, verbose=False)
            kept.append(bundles.reference_record(folder, "savedmodel"))
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
                    self.prepared.source.preprocessing,
                    labels=self.prepared.source.labels,
                    layout=self.prepared.options.onnx_layout,
                    fold_input=self.prepared.options.fold_input,
                    batch=self.prepared.options.batch,
                )
                (self.folder / f"run_{kind}.py").write_text(script, encoding="utf-8")

    def _manifest(
        self,
        artifacts: tuple[ArtifactRecord, ...],
        references: tuple[ReferenceRecord, ...],
    ) -> Manifest:
        graph = self.prepared.passes.graph
        return Manifest(
            model=ModelRecord(
                name=self.prepared.source.name,
                origin=self.prepared.source.origin,
                digest=self.prepared.source.digest,
                weights=self.prepared.source.weights,
                weights_digest=self.prepared.source.weights_digest,
                custom_objects_digest=self.prepared.source.custom_objects_digest,
                parameters=graph.parameters,
                macs=graph.macs,
                half=self.prepared.reference.half,
            ),
            preprocessing=self.prepared.source.preprocessing.to_json(),
            fold_input=self.prepared.options.fold_input,
            labels=self.prepared.source.labels,
            input=TensorRecord(name="image", shape=(self.prepared.options.batch, *graph.input_shape)),
            output=TensorRecord(name=graph.output_name, shape=(self.prepared.options.batch, graph.classes)),
            opset=self.prepared.options.opset,
            onnx_layout=self.prepared.options.onnx_layout,
            reference=references,
            artifacts=artifacts,
            passes=self.prepared.passes.reports,
            warnings=self.prepared.warnings,
            versions=installed_versions(_VERSIONED),
            command=self.prepared.options.command,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
