"""The steps of a verification, in the order in which the pipeline takes them."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import DependencyMissingError, UsageError
from resnet_edge.verification.opening import RUNTIMES, Place, engine_title, lost, open_everywhere
from resnet_edge.verification.report import ArtifactReport, Report
from resnet_edge.verification.target import BundleTarget

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.pipeline import VerifyOptions
    from resnet_edge.stages import Stages
    from resnet_edge.verification.gates import Limits, Subject
    from resnet_edge.verification.images import VerificationData
    from resnet_edge.verification.opening import Opened
    from resnet_edge.verification.report import ChangedImage, Check
    from resnet_edge.verification.running import Compute
    from resnet_edge.verification.target import Candidate, Target

REFERENCE = "reference"
"""The float model's place among the models that run."""

_VERSIONED = ("resnet-edge", "tensorflow", "keras", "onnxruntime", "ai-edge-litert", "numpy", "scipy")


def check_requirements(options: VerifyOptions) -> None:
    """See that ``--require`` names runners that are used, and runtimes that there are.

    Raises:
        UsageError: It names something else.
    """
    known = (*options.runners, *RUNTIMES.values())
    for name in options.require:
        if name not in known:
            raise UsageError(
                "nothing of that name can be required", where=f"--require {name}", allowed=", ".join(known)
            )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Everything that ran, beside the reference.

    Attributes:
        reference: The float model's outputs (N, classes).
        outputs: The artifacts'.
        probabilities: Whether these are probabilities rather than logits.
        notes: What was done to make them comparable.
    """

    reference: NDArray[np.float32]
    outputs: Mapping[Place, NDArray[np.float32]]
    probabilities: bool
    notes: tuple[str, ...]


class Verification:
    """One verification.

    Args:
        target: What is verified.
        options: What the user asked for.
        limits: Of the gates.
        stages: Times the work.
    """

    def __init__(self, target: Target, options: VerifyOptions, limits: Limits, stages: Stages) -> None:
        self._target, self._options, self._limits, self._stages = target, options, limits, stages
        self._threads = options.threads or usable_cores()

    def run(self) -> Report:
        """Run everything, then compare.

        Raises:
            UsageError: A runner's name, or ``--data``, means nothing.
            DataRejectedError: The images cannot be used.
            ModelRejectedError: The float model cannot be run.
            DependencyMissingError: No artifact could be run.
        """
        from resnet_edge.runners.choosing import open_runner
        from resnet_edge.verification.images import open_images

        runners = [open_runner(name) for name in dict.fromkeys(self._options.runners)]
        with self._stages.stage("open the images"):
            data = open_images(self._target, self._options)
        with self._stages.stage("check the files"):
            checks = self._check_files()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with self._stages.stage("open the artifacts"):
                opened = open_everywhere(
                    self._target.candidates,
                    runners,
                    stack,
                    threads=self._threads,
                    kernels=self._options.kernels,
                    required=self._options.require,
                )
            compared = self._run_all(opened, data, folder)
            artifacts = [self._measure(place, opened, data, compared, checks) for place in compared.outputs]
            changed = self._gallery(data, compared)
        return self._report(data, opened, compared, artifacts, [*checks, *opened.checks], changed)

    def _check_files(self) -> list[Check]:
        from resnet_edge.verification.files import check_files

        target = self._target
        if not isinstance(target, BundleTarget):
            return []
        return [check_files(target, candidate) for candidate in target.candidates]

    def _run_all(self, opened: Opened, data: VerificationData, folder: Path) -> Compared:
        """Send the images through every artifact, and through the float model if that was not done before."""
        from resnet_edge.verification.reference import cache_file, keep, load
        from resnet_edge.verification.running import run_all

        if not opened.engines and not any(check.verdict == "fail" for check in opened.checks):
            raise DependencyMissingError(
                "no artifact could be run", found="; ".join(check.sentence for check in opened.checks)
            )
        target, dataset = self._target, data.dataset
        path = cache_file(target, data.description.digest)
        reference = load(path, dataset, target.classes)
        models: dict[Place | str, Compute] = {place: engine.run for place, engine in opened.engines.items()}
        if reference is None:
            with self._stages.stage("load the float model"):
                models = {REFERENCE: self._reference(), **models}
        title = f"run {len(models)} models on {len(dataset)} images"
        with self._stages.stage(title, total=len(dataset)) as done:
            outputs = run_all(models, dataset, classes=target.classes, folder=folder, progress=done)
        if reference is None:
            reference = outputs.arrays[REFERENCE]
            keep(path, reference)
        for name, error in outputs.lost.items():
            if isinstance(name, Place):
                opened.checks.append(lost(name, error, self._options.require))
        arrays = {place: array for place, array in outputs.arrays.items() if isinstance(place, Place)}
        return _comparable(reference, arrays)

    def _reference(self) -> Compute:
        """The float model on what the artifacts take: pixels, where the normalization is inside of them."""
        target, run = self._target, self._target.model.run
        if target.artifact_contract == target.contract:
            return run
        return lambda pixels: run(target.contract.normalize(pixels))

    def _measure(
        self, place: Place, opened: Opened, data: VerificationData, compared: Compared, checks: list[Check]
    ) -> ArtifactReport:
        """Figures and verdicts of one artifact on one runner; the verdicts are added to ``checks``."""
        from resnet_edge.verification.accuracy import measure_accuracy
        from resnet_edge.verification.gates import check_accuracy, check_parity
        from resnet_edge.verification.parity import measure_parity

        candidate, confidence = place.candidate, self._limits.confidence
        subject = self._subject(place, data)
        outputs = compared.outputs[place]
        parity = measure_parity(
            compared.reference,
            outputs,
            confidence=confidence,
            probabilities=compared.probabilities,
            step=self._step(candidate),
        )
        checks += check_parity(parity, self._limits, subject)
        accuracy = None
        if data.labels is not None:
            accuracy = measure_accuracy(
                compared.reference,
                outputs,
                data.labels,
                class_names=self._target.labels,
                confidence=confidence,
            )
            checks += check_accuracy(accuracy, self._limits, subject)
        machine = opened.machines[place.runner]
        return ArtifactReport(
            path=candidate.name,
            format=candidate.format,
            precision=candidate.precision,
            size=candidate.size,
            runner=place.runner,
            engine=engine_title(candidate.format, self._options.kernels, machine),
            parity=parity,
            accuracy=accuracy,
        )

    def _subject(self, place: Place, data: VerificationData) -> Subject:
        from resnet_edge.verification.gates import Subject

        return Subject(
            artifact=place.candidate.name,
            runner=place.runner,
            precision=place.candidate.precision,
            half=self._target.half,
            seeded=data.seeded,
        )

    def _step(self, candidate: Candidate) -> float | None:
        """The scale of an integer output."""
        quantized = self._target.quantized(candidate)
        if quantized is None:
            return candidate.step
        quant = quantized.spec.tensors.get(quantized.graph.output)
        return None if quant is None else quant.scale

    def _gallery(self, data: VerificationData, compared: Compared) -> tuple[ChangedImage, ...]:
        from resnet_edge.verification.gallery import changed_images

        several = len(self._options.runners) > 1
        return changed_images(
            data,
            compared.reference,
            {
                f"{place.candidate.name} ({place.runner})" if several else place.candidate.name: outputs
                for place, outputs in compared.outputs.items()
            },
            class_names=self._target.labels,
            probabilities=compared.probabilities,
        )

    def _report(
        self,
        data: VerificationData,
        opened: Opened,
        compared: Compared,
        artifacts: list[ArtifactReport],
        checks: list[Check],
        changed: tuple[ChangedImage, ...],
    ) -> Report:
        target = self._target
        return Report(
            subject=target.name,
            model=target.model_name,
            reference=target.reference,
            data=data.description,
            confidence=self._limits.confidence,
            machines=opened.machines,
            artifacts=tuple(artifacts),
            checks=tuple(checks),
            changed=changed,
            notes=(*target.notes, *compared.notes),
            versions={name: importlib.metadata.version(name) for name in _VERSIONED},
            command=self._options.command,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            seconds=dict(self._stages.seconds),
        )


def _comparable(reference: NDArray[np.float32], outputs: Mapping[Place, NDArray[np.float32]]) -> Compared:
    """Logits beside logits, or probabilities beside probabilities."""
    from resnet_edge.verification.foreign import are_probabilities, make_comparable

    made = {place: make_comparable(reference, array) for place, array in outputs.items()}
    # A softmax of the reference on behalf of one artifact is one for all: they are compared with one another.
    references = [theirs for theirs, _, _ in made.values()]
    reference = next((theirs for theirs in references if theirs is not reference), reference)
    return Compared(
        reference=reference,
        outputs={place: ours for place, (_, ours, _) in made.items()},
        probabilities=are_probabilities(reference[:1000]),
        notes=tuple(dict.fromkeys(note for _, _, note in made.values() if note)),
    )
