"""The steps of a fine-tuning, in the order in which the pipeline takes them."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge import bundle as bundles
from resnet_edge.contents import (
    FINETUNED,
    artifact_contract,
    fold,
    load_folded,
    load_imported,
)
from resnet_edge.data.held_back import save_kept
from resnet_edge.finetuning.bridge import check_operators, to_tf_keras
from resnet_edge.finetuning.equality import compare, outputs_of
from resnet_edge.finetuning.float_writing import FloatWriter
from resnet_edge.finetuning.images import open_streams
from resnet_edge.finetuning.losses import Objective
from resnet_edge.finetuning.qat import FakeQuantized
from resnet_edge.finetuning.states import state_file
from resnet_edge.finetuning.students import Start
from resnet_edge.finetuning.training import Trainer, be_deterministic
from resnet_edge.graph.serialization import save_graph
from resnet_edge.manifest import FinetuneRecord, HeldBackRecord, Manifest, read_manifest
from resnet_edge.quantization.parity import COLLAPSED_DB, Judge
from resnet_edge.quantization.statistics import statistics_key
from resnet_edge.quantized_writing import QuantizedWriter
from resnet_edge.quantizing import HELD_BACK, HELD_BACK_NAME
from resnet_edge.verification.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resnet_edge.finetuning.clustering import Clustered
    from resnet_edge.finetuning.images import Stream
    from resnet_edge.finetuning.options import FinetuneOptions
    from resnet_edge.finetuning.progress import Epoch
    from resnet_edge.finetuning.pruning import Pruned
    from resnet_edge.graph import Graph
    from resnet_edge.stages import Stages

REMEMBERED = 10_000
"""Training images whose hashes are kept, at most: ``verify`` tells by them that images were trained on."""

RUNTIME_DB = 3.0
"""What a runtime's own rounding may cost an artifact against the trained model."""

FINETUNED_NAME = "finetuned.safetensors"

_VERSIONED = ("resnet-edge", "tensorflow", "tensorflow-model-optimization", "tf-keras", "numpy")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A finished training.

    Attributes:
        start: What it began with.
        teacher: The float graph as it was exported, folded.
        student: The trained model.
        training: What it was trained on.
        validation: What it was validated on.
        record: For the manifest.
    """

    start: Start
    teacher: Graph
    student: FakeQuantized | Pruned | Clustered
    training: Stream
    validation: Stream
    record: FinetuneRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Finetuning:
    """The fine-tuning of one bundle.

    Attributes:
        source: The bundle.
        destination: The bundle to make.
        options: What the user asked for.
        stages: Times the work.
    """

    source: Path
    destination: Path
    options: FinetuneOptions
    stages: Stages

    def train(self) -> Trained:
        """Everything before the first file of the new bundle.

        Raises:
            UsageError: The bundle lacks what the method needs, or an option names nothing.
            ModelRejectedError: An operator cannot be fine-tuned.
            DataRejectedError: The images or labels cannot be used.
            ConversionFailedError: The training diverged.
        """
        options, manifest = self.options, read_manifest(self.source)
        with self.stages.stage("load the graph"):
            imported = load_imported(self.source, manifest)
            teacher = fold(imported, manifest)
            graph = load_folded(self.source, manifest, imported)
            check_operators(graph.nodes)
            start = Start.of(self.source, manifest, graph, options)
        with self.stages.stage("open the images"):
            training, validation = open_streams(
                options, artifact_contract(manifest), graph.classes, manifest.labels
            )
        be_deterministic(options.seed)
        with self.stages.stage("build the models"):
            student = start.student(options, options.epochs * len(training))
            objective = Objective.of(options.loss, to_tf_keras(teacher), teacher)
        trainer = Trainer(
            student=student,
            objective=objective,
            training=training,
            validation=validation,
            options=options,
            stages=self.stages,
            state=self._state(start, training),
        )
        with self.stages.stage("validate before training"):
            before = trainer.untrained()
        epochs = trainer.run(before)
        record = self._record(start, training, validation, before, epochs)
        return Trained(
            start=start,
            teacher=teacher,
            student=student,
            training=training,
            validation=validation,
            record=record,
        )

    def write(self, folder: Path, trained: Trained) -> Manifest:
        """Fill the new bundle, but for its manifest, which is returned.

        Raises:
            ConversionFailedError: A file could not be written, or is not what was trained.
            GateFailedError: A quantized file has collapsed.
        """
        manifest = bundles.adopt(self.source, folder)
        if isinstance(trained.student, FakeQuantized):
            manifest = self._write_integers(folder, manifest, trained, trained.student)
        else:
            manifest = self._write_floats(folder, manifest, trained, trained.student)
        return replace(
            manifest,
            held_back=self._hold_back(folder, trained),
            versions={**manifest.versions, **{name: importlib.metadata.version(name) for name in _VERSIONED}},
            command=self.options.command,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )

    def _write_integers(
        self, folder: Path, manifest: Manifest, trained: Trained, student: FakeQuantized
    ) -> Manifest:
        """The trained recipe's artifacts in the place of the calibrated ones."""
        recipe = trained.start.recipe
        assert recipe is not None  # noqa: S101 - qat starts from one
        quantized = student.result()
        images = trained.validation.dataset
        with self.stages.stage("compare the integers with the trained model"):
            inputs = np.concatenate(list(images.batches(0, HELD_BACK)))
            equality = compare(student.model, quantized, inputs)
        with self.stages.stage("run the float model"):
            judge = Judge.over(trained.teacher, images, 0, HELD_BACK, artifact_contract(manifest))
            reached = sqnr_db(judge.outputs, outputs_of(student.model, judge.inputs))
            # How good it is, validation has said; here a file has to be as good as what was trained.
            judge = replace(judge, least_db=min(COLLAPSED_DB, reached - RUNTIME_DB))
        replaced = [record.format for record in manifest.artifacts if record.precision == recipe.name]
        writer = QuantizedWriter(
            folder=folder,
            manifest=manifest,
            formats=tuple(replaced),
            onnx_activations=trained.start.onnx_activations,
            stages=self.stages,
        )
        converters = writer.choose_converters(recipe)
        plan = writer.keep(quantized, recipe, trained.start.graph)
        added = writer.write(plan, converters, judge)
        others = tuple(each for each in manifest.finetuned if each.recipe != recipe.name)
        record = replace(trained.record, **asdict(equality))
        return replace(
            manifest,
            artifacts=(*writer.still_valid(added), *added),
            finetuned=(*others, record),
        )

    def _write_floats(
        self, folder: Path, manifest: Manifest, trained: Trained, student: Pruned | Clustered
    ) -> Manifest:
        """Float artifacts of the new weights; what was made from the old ones goes."""
        graph = student.result()
        kept = tuple(record for record in manifest.reference if record.format != FINETUNED)
        for path in folder.iterdir():
            if path.name not in {record.path for record in kept} and not path.name.startswith("run_"):
                bundles.remove(path)
        file = folder / FINETUNED_NAME
        save_graph(graph, file)
        writer = FloatWriter(
            folder=folder, manifest=manifest, graph=graph, model=student.model, stages=self.stages
        )
        others = tuple(each for each in manifest.finetuned if each.method != "qat")
        return replace(
            manifest,
            reference=(*kept, bundles.reference_record(file, FINETUNED)),
            artifacts=writer.write(),
            finetuned=(*others, trained.record),
            calibration_notes=(),
        )

    def _hold_back(self, folder: Path, trained: Trained) -> HeldBackRecord:
        """Validation images, in the place of images that the model may have been trained on."""
        path = folder / HELD_BACK_NAME
        bundles.remove(path)
        kept = trained.validation.dataset.pick(np.arange(min(HELD_BACK, len(trained.validation.dataset))))
        seen = trained.training.dataset.image_hashes(0, REMEMBERED)
        count = save_kept(kept, path, seen=seen)
        name = self.options.validation or self.options.data
        return HeldBackRecord(path=path.name, source=name, images=count, sha256=bundles.digest(path))

    def _record(
        self,
        start: Start,
        training: Stream,
        validation: Stream,
        before: Epoch,
        epochs: Sequence[Epoch],
    ) -> FinetuneRecord:
        options = self.options
        # Zeros have to be there in the end; all else may stay as it was where training did it no good.
        fallback = epochs[-1] if options.method == "prune" else before
        kept = next((epoch for epoch in reversed(epochs) if epoch.best), fallback)
        return FinetuneRecord(
            method=options.method,
            recipe=start.recipe.name if start.recipe else "",
            layers=start.layers,
            sparsity=options.sparsity,
            clusters=options.clusters,
            data=options.data,
            images=len(training.dataset),
            validation_images=len(validation.dataset),
            labelled=kept.labelled,
            loss=options.loss,
            learning_rate=options.rate,
            batch=options.batch,
            seed=options.seed,
            epochs=len(epochs),
            best_epoch=kept.number,
            loss_before=before.validation_loss,
            loss_after=kept.validation_loss,
            accuracy_before=before.validation_accuracy,
            accuracy_after=kept.validation_accuracy,
        )

    def _state(self, start: Start, training: Stream) -> Path:
        """Where the state of exactly this training is kept."""
        options = {name: value for name, value in asdict(self.options).items() if name != "command"}
        total = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
        if start.quantized is not None:
            total.update(start.quantized.spec.digest.encode())
        # The first images stand for all: hashing a large set would take as long as an epoch.
        images = training.dataset.digest(0, training.batch)
        total.update(statistics_key(start.graph, images, str(len(training.dataset))).encode())
        return state_file(self.destination, total.hexdigest()[:12])
