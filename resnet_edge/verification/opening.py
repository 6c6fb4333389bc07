"""Artifacts opened on machines; what cannot be opened becomes a verdict, and the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from resnet_edge.errors import DependencyMissingError, ModelRejectedError, RunnerUnreachableError
from resnet_edge.runners import Load
from resnet_edge.verification.report import Check

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Mapping, Sequence

    from resnet_edge.engines import Engine
    from resnet_edge.errors import ResnetEdgeError
    from resnet_edge.runners import Kernels, Machine, Runner
    from resnet_edge.verification.report import Verdict
    from resnet_edge.verification.target import Candidate

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


Engines: TypeAlias = "dict[Place, Engine]"


@dataclass(kw_only=True)
class Opened:
    """What was opened, and what was not.

    Attributes:
        engines: By artifact and runner.
        machines: By runner.
        checks: Why the others could not be opened.
    """

    engines: Engines = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def engine_title(format: str, kernels: Kernels, machine: Machine) -> str:  # noqa: A002 - its name everywhere
    """What runs a format's artifacts on a machine, with version and kernels."""
    title, packages = _TITLES.get(format, (format, (format,)))
    version = next((machine.packages[name] for name in packages if name in machine.packages), "")
    which = {"xnnpack": "XNNPACK", "reference": "reference kernels"}[kernels]
    return " ".join(filter(None, [title, version, f"({which})" if format == "tflite" else ""]))


def open_everywhere(
    candidates: Sequence[Candidate],
    runners: Sequence[Runner],
    stack: contextlib.ExitStack,
    *,
    threads: int,
    kernels: Kernels,
    required: Sequence[str],
) -> Opened:
    """Open every artifact on every runner.

    Args:
        candidates: The artifacts.
        runners: The machines, not yet connected.
        stack: Closes them, and what is opened on them.
        threads: Within an operator.
        kernels: Of .tflite files.
        required: Names of runners and runtimes that must be there.
    """
    opened = Opened()
    for runner in runners:
        try:
            stack.enter_context(runner)
            opened.machines[runner.name] = runner.probe()
        except (RunnerUnreachableError, DependencyMissingError) as error:
            opened.checks.append(_runner_check(runner.name, error, required))
            continue
        for candidate in candidates:
            load = Load(artifact=candidate.path, format=candidate.format, threads=threads, kernels=kernels)
            place = Place(candidate=candidate, runner=runner.name)
            try:
                opened.engines[place] = stack.enter_context(runner.open(load))
            except DependencyMissingError as error:
                verdict: Verdict = "missing" if RUNTIMES.get(candidate.format) in required else "skipped"
                opened.checks.append(_check("runtime", place, verdict, error))
            except ModelRejectedError as error:
                opened.checks.append(_check("runtime", place, "fail", error))
            except RunnerUnreachableError as error:
                opened.checks.append(lost(place, error, required))
    return opened


def lost(place: Place, error: ResnetEdgeError, required: Sequence[str]) -> Check:
    """The verdict on an artifact whose runner does not answer any more."""
    return _check("runner", place, "unreachable" if place.runner in required else "skipped", error)


def _runner_check(name: str, error: ResnetEdgeError, required: Sequence[str]) -> Check:
    verdict: Verdict = "unreachable" if name in required else "skipped"
    return Check(name="runner", artifact="", runner=name, verdict=verdict, sentence=_sentence(error))


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
