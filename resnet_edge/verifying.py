"""The steps of a verification, in the order in which the pipeline takes them."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import ModelRejectedError, UsageError
from resnet_edge.temporary import temporary_folder
from resnet_edge.verification.opening import (
    RUNTIMES,
    Place,
    Settings,
    connect,
    engine_title,
    saturation_notes,
)
from resnet_edge.verification.report import ArtifactReport, Report
from resnet_edge.versions import installed_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnet_edge.pipeline import VerifyOptions
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.stages import Stages
    from resnet_edge.verification.execution import Ran
    from resnet_edge.verification.gates import Limits, Subject
    from resnet_edge.verification.images import VerificationData
    from resnet_edge.verification.opening import Connected
    from resnet_edge.verification.report import ChangedImage, Check
    from resnet_edge.verification.target import Candidate, Target

_VERSIONED = ("resnet-edge", "tensorflow", "keras", "onnxruntime", "ai-edge-litert", "numpy", "scipy")


def check_options(options: VerifyOptions) -> None:
    """Refuse what cannot be done, before any work.

    Raises:
        UsageError: ``--require`` names no runner that is used and no runtime, or ``--bisect`` a used folder.
    """
    if options.bisect is not None:
        from resnet_edge.verification.diagnosis import check_reproduction_folder

        check_reproduction_folder(options.bisect)
    known = (*options.runners, *RUNTIMES.values())
    for name in options.require:
        if name not in known:
            raise UsageError(
                "nothing of that name can be required", where=f"--require {name}", allowed=", ".join(known)
            )


class Verification:
    """One verification; verdicts and notes gather as it goes.

    Args:
        target: What is verified.
        options: What the user asked for.
        limits: Of the gates.
        stages: Times the work.
    """

    def __init__(self, target: Target, options: VerifyOptions, limits: Limits, stages: Stages) -> None:
        self._target, self._options, self._limits, self._stages = target, options, limits, stages
        threads = options.threads or usable_cores()
        self._settings = Settings(threads=threads, kernels=options.kernels, required=options.require)
        self._checks: list[Check] = []
        self._notes: list[str] = []

    def run(self) -> Report:
        """Run everything, then compare.

        Raises:
            UsageError: A runner's name, or ``--data``, means nothing.
            DataRejectedError: The images cannot be used.
            ModelRejectedError: The float model cannot be run.
            DependencyMissingError: No artifact could be run.
        """
        from resnet_edge.runners.choosing import open_runner
        from resnet_edge.verification.execution import Execution
        from resnet_edge.verification.images import open_images

        runners = [open_runner(name) for name in dict.fromkeys(self._options.runners)]
        with self._stages.stage("open the images"):
            data = open_images(self._target, self._options)
        with self._stages.stage("check the files"):
            self._check_files()
            if "local" in self._options.runners:
                self._notes += saturation_notes(self._target.candidates)
        with contextlib.ExitStack() as stack:
            with self._stages.stage("reach the runners"):
                machines, checks = connect(runners, stack, self._options.require)
            self._checks += checks
            folder = stack.enter_context(temporary_folder())
            execution = Execution(
                target=self._target, data=data, settings=self._settings, stages=self._stages
            )
            ran = execution.run(machines, checks, folder)
            self._checks += ran.checks
            artifacts = [self._compare(place, machines, ran) for place in ran.outputs]
            self._compare_machines(machines, ran)
            if self._layers_asked:
                artifacts = self._look_into(ran, artifacts)
            if self._options.latency or self._options.min_speedup is not None:
                artifacts = self._time(machines, ran, artifacts)
            changed = self._gallery(ran)
        return self._report(machines, ran, [*artifacts, *self._not_run(ran)], changed)

    def _check_files(self) -> None:
        from resnet_edge.verification.files import check_files
        from resnet_edge.verification.target import BundleTarget

        if isinstance(self._target, BundleTarget):
            self._checks += check_files(self._target)

    def _compare(self, place: Place, machines: Sequence[Connected], ran: Ran) -> ArtifactReport:
        """Figures and verdicts of one artifact on one runner."""
        from resnet_edge.verification.accuracy import measure_accuracy
        from resnet_edge.verification.gates import check_accuracy, check_parity
        from resnet_edge.verification.parity import measure_parity

        candidate, confidence, labels = place.candidate, self._limits.confidence, ran.data.labels
        subject, outputs = self._subject(place, ran.data), ran.outputs[place]
        with self._stages.stage("compare the outputs"):
            parity = measure_parity(
                ran.reference,
                outputs,
                confidence=confidence,
                probabilities=ran.probabilities,
                step=self._output_scale(candidate),
            )
            self._checks += check_parity(parity, self._limits, subject)
            accuracy = None
            if labels is not None:
                names = self._target.labels
                accuracy = measure_accuracy(
                    ran.reference, outputs, labels, class_names=names, confidence=confidence
                )
            self._checks += check_accuracy(accuracy, self._limits, subject)
        machine = next(each.machine for each in machines if each.runner.name == place.runner)
        engine = engine_title(candidate.format, self._options.kernels, machine)
        return replace(_row(place, engine), parity=parity, accuracy=accuracy)

    def _compare_machines(self, machines: Sequence[Connected], ran: Ran) -> None:
        """Every artifact on every device against itself on this machine."""
        from resnet_edge.verification.machines import compare_machines, has_half_arithmetic, promised

        half = any(has_half_arithmetic(each.machine) for each in machines)
        for place, there in ran.outputs.items():
            here = ran.outputs.get(replace(place, runner="local"))
            if place.runner != "local" and here is not None:
                quantized = self._quantized(place.candidate)
                promise = promised(place.candidate, quantized, self._options.kernels, half=half)
                self._checks.append(compare_machines(place, here, there, promise))

    def _not_run(self, ran: Ran) -> list[ArtifactReport]:
        """The artifacts that did not run, as the checks say why."""
        runners = dict.fromkeys(self._options.runners)
        places = [Place(candidate=each, runner=name) for name in runners for each in self._target.candidates]
        return [_row(place, "not run") for place in places if place not in ran.outputs]

    def _subject(self, place: Place, data: VerificationData) -> Subject:
        from resnet_edge.verification.formats import why_not_exposed
        from resnet_edge.verification.gates import Subject

        candidate, quantized = place.candidate, self._quantized(place.candidate)
        return Subject(
            artifact=candidate.name,
            runner=place.runner,
            # What a recipe of the user's own is a variant of is in the spec.
            precision=quantized.spec.recipe if quantized else candidate.precision,
            half=self._target.half,
            tuned=self._target.tuned,
            seeded=data.seeded,
            classes=self._target.classes,
            layers_tell=not (self._layers_asked or quantized is None or why_not_exposed(candidate.format)),
        )

    @property
    def _layers_asked(self) -> bool:
        return self._options.layers or self._options.bisect is not None

    def _quantized(self, candidate: Candidate) -> Quantized | None:
        """What an artifact was written from; None where that is not known, or damaged as its check says."""
        with contextlib.suppress(ModelRejectedError):
            return self._target.quantized(candidate)
        return None

    def _output_scale(self, candidate: Candidate) -> float | None:
        """The scale of an integer output."""
        quantized = self._quantized(candidate)
        if quantized is None:
            return candidate.step
        quant = quantized.spec.tensors.get(quantized.graph.output)
        return None if quant is None else quant.scale

    def _look_into(self, ran: Ran, artifacts: Sequence[ArtifactReport]) -> list[ArtifactReport]:
        """The artifacts that ran on this machine with their layers; no other machine shows inner tensors."""
        from resnet_edge.verification.diagnosis import Diagnosis

        diagnosis = Diagnosis(
            dataset=ran.data.dataset, reference=ran.reference, kernels=self._options.kernels
        )
        reports = dict(zip(ran.outputs, artifacts, strict=True))
        with self._stages.stage("compare the layers", total=len(reports)) as done:
            for number, (place, report) in enumerate(reports.items()):
                if place.runner == "local":
                    candidate, outputs = place.candidate, ran.outputs[place]
                    quantized = self._quantized(candidate)
                    layers, check = diagnosis.layers(candidate, quantized, self._subject(place, ran.data))
                    self._checks.append(check)
                    steps = quantized and diagnosis.waterfall(candidate, quantized, report.engine, outputs)
                    reports[place] = replace(report, layers=layers, waterfall=steps or ())
                done(number + 1)
            if self._options.bisect is not None:
                self._notes.append(diagnosis.reproduce_worst(self._options.bisect))
        return list(reports.values())

    def _time(
        self, machines: Sequence[Connected], ran: Ran, artifacts: Sequence[ArtifactReport]
    ) -> list[ArtifactReport]:
        """The artifacts with their latencies."""
        from resnet_edge.verification.gates import check_speedup
        from resnet_edge.verification.timing import time_everywhere

        reports = dict(zip(ran.outputs, artifacts, strict=True))
        times, checks = time_everywhere(
            machines, reports, self._settings, self._limits.confidence, self._stages
        )
        self._checks += checks
        for place in reports:
            self._checks += check_speedup(times.get(place), self._limits, self._subject(place, ran.data))
        return [replace(report, latency=times.get(place)) for place, report in reports.items()]

    def _gallery(self, ran: Ran) -> tuple[ChangedImage, ...]:
        from resnet_edge.verification.gallery import changed_images

        several = len(set(self._options.runners)) > 1
        return changed_images(
            ran.data,
            ran.reference,
            {
                f"{place.candidate.name} ({place.runner})" if several else place.candidate.name: outputs
                for place, outputs in ran.outputs.items()
            },
            class_names=self._target.labels,
            probabilities=ran.probabilities,
        )

    def _report(
        self,
        machines: Sequence[Connected],
        ran: Ran,
        artifacts: Sequence[ArtifactReport],
        changed: tuple[ChangedImage, ...],
    ) -> Report:
        target = self._target
        return Report(
            subject=target.name,
            model=target.model_name,
            reference=target.reference,
            data=ran.data.description,
            confidence=self._limits.confidence,
            machines={each.runner.name: each.machine for each in machines},
            artifacts=tuple(artifacts),
            checks=tuple(self._checks),
            changed=changed,
            notes=(*target.notes, *ran.notes, *self._notes),
            versions=installed_versions(_VERSIONED),
            command=self._options.command,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            seconds=dict(self._stages.seconds),
        )


def _row(place: Place, engine: str) -> ArtifactReport:
    """An artifact without its figures."""
    candidate = place.candidate
    return ArtifactReport(
        path=candidate.name,
        format=candidate.format,
        precision=candidate.precision,
        size=candidate.size,
        runner=place.runner,
        engine=engine,
    )
