"""Artifacts opened on machines; what cannot be opened becomes a verdict, and the rest goes on."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from resnet_edge.errors import DependencyMissingError, ModelRejectedError, RunnerUnreachableError
from resnet_edge.runners import Load
from resnet_edge.verification.report import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from resnet_edge.engines import Kernels
    from resnet_edge.errors import ResnetEdgeError
    from resnet_edge.runners import Machine, Runner
    from resnet_edge.verification.report import Verdict
    from resnet_edge.verification.target import Candidate

Opened = TypeVar("Opened")

RUNTIMES: Mapping[str, str] = {"tflite": "litert", "onnx": "onnxruntime", "savedmodel": "tensorflow"}
"""What ``--require`` calls the runtime of each format."""

_TITLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "tflite": ("LiteRT", ("ai-edge-litert", "tflite-runtime")),
    "onnx": ("ONNX Runtime", ("onnxruntime",)),
    "savedmodel": ("TensorFlow", ("tensorflow",)),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """An artifact on a machine.

    Attributes:
        candidate: The artifact.
        runner: The runner's name.
    """

    candidate: Candidate
    runner: str


@dataclass(frozen=True, kw_only=True)
class Connected:
    """A machine that answers, and what it is."""

    runner: Runner
    machine: Machine


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How artifacts are opened.

    Attributes:
        threads: Within an operator.
        kernels: Of .tflite files.
        required: Names of runners and runtimes that must be there.
    """

    threads: int
    kernels: Kernels
    required: Sequence[str]

    def load(self, candidate: Candidate) -> Load:
        """The same for one artifact."""
        return Load(
            artifact=candidate.path, format=candidate.format, threads=self.threads, kernels=self.kernels
        )


def engine_title(format: str, kernels: Kernels, machine: Machine) -> str:  # noqa: A002 - its name everywhere
    """What runs a format's artifacts on a machine, with version and kernels."""
    title, packages = _TITLES.get(format, (format, (format,)))
    version = next((machine.packages[name] for name in packages if name in machine.packages), "")
    which = {"xnnpack": "XNNPACK", "reference": "reference kernels"}[kernels]
    return " ".join(filter(None, [title, version, f"({which})" if format == "tflite" else ""]))


def connect(
    runners: Sequence[Runner], stack: contextlib.ExitStack, required: Sequence[str]
) -> tuple[list[Connected], list[Check]]:
    """Reach every machine; those that do not answer become verdicts.

    Args:
        runners: The machines.
        stack: Disconnects them.
        required: Names of runners that must be there.
    """
    connected, checks = [], []
    for runner in runners:
        try:
            stack.enter_context(runner)
            connected.append(Connected(runner=runner, machine=runner.probe()))
        except (RunnerUnreachableError, DependencyMissingError) as error:
            verdict: Verdict = "unreachable" if runner.name in required else "skipped"
            checks.append(
                Check(
                    name="runner", artifact="", runner=runner.name, verdict=verdict, sentence=_sentence(error)
                )
            )
    return connected, checks


def open_each(
    what: Callable[[Runner, Load], Opened],
    candidates: Sequence[Candidate],
    machines: Sequence[Connected],
    settings: Settings,
) -> tuple[dict[Place, Opened], list[Check]]:
    """Open every artifact on every machine; those that cannot be opened become verdicts.

    Args:
        what: Opens one: ``Runner.open`` or ``Runner.timer``.
        candidates: The artifacts.
        machines: That answer.
        settings: How they are opened.
    """
    opened: dict[Place, Opened] = {}
    checks: list[Check] = []
    for each in machines:
        for candidate in candidates:
            place = Place(candidate=candidate, runner=each.runner.name)
            try:
                opened[place] = what(each.runner, settings.load(candidate))
            except DependencyMissingError as error:
                required = RUNTIMES.get(candidate.format) in settings.required
                checks.append(_check("runtime", place, "missing" if required else "skipped", error))
            except ModelRejectedError as error:
                checks.append(_check("runtime", place, "fail", error))
            except RunnerUnreachableError as error:
                checks.append(lost(place, error, settings.required))
    return opened, checks


def saturation_notes(candidates: Sequence[Candidate]) -> list[str]:
    """What to say where this machine's processor may cut off integer sums that others compute exactly."""
    from resnet_edge.engines.cpu import saturating_uint8_kernels
    from resnet_edge.inspection.onnx_saturation import saturation

    if not saturating_uint8_kernels():
        return []
    notes = []
    for candidate in candidates:
        with contextlib.suppress(ModelRejectedError):  # damaged: opening it says so
            if candidate.format == "onnx" and (found := saturation(candidate.path)).affected:
                notes.append(f"{candidate.name}: {found}")
    return notes


def lost(place: Place, error: ResnetEdgeError, required: Sequence[str]) -> Check:
    """The verdict on an artifact whose runner does not answer any more."""
    return _check("runner", place, "unreachable" if place.runner in required else "skipped", error)


def _check(name: str, place: Place, verdict: Verdict, error: ResnetEdgeError) -> Check:
    return Check(
        name=name,
        artifact=place.candidate.name,
        runner=place.runner,
        verdict=verdict,
        sentence=_sentence(error),
    )


def _sentence(error: ResnetEdgeError) -> str:
    """An error in one line."""
    return "; ".join(filter(None, [error.what, error.found, error.next_step])).replace("\n", " ")
