"""The float model and every artifact on every machine at work on the same images."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_edge.errors import DependencyMissingError, RunnerUnreachableError
from resnet_edge.verification.foreign import are_probabilities, make_comparable
from resnet_edge.verification.opening import Place, lost, open_each
from resnet_edge.verification.reference import cache_file, keep, load
from resnet_edge.verification.running import run_all
from resnet_edge.verification.target import BundleTarget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.stages import Stages
    from resnet_edge.verification.images import VerificationData
    from resnet_edge.verification.opening import Connected, Settings
    from resnet_edge.verification.report import Check
    from resnet_edge.verification.running import Compute
    from resnet_edge.verification.target import Target

REFERENCE = "reference"
"""The float model's place among the models that run."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What was computed.

    Attributes:
        data: On which images.
        reference: The float model's outputs (N, classes).
        outputs: The artifacts'.
        probabilities: Whether these are probabilities rather than logits.
        notes: What was done to make them comparable.
        checks: Verdicts on what could not be run.
    """

    data: VerificationData
    reference: NDArray[np.float32]
    outputs: Mapping[Place, NDArray[np.float32]]
    probabilities: bool
    notes: tuple[str, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Sends images through models.

    Attributes:
        target: Artifacts and float model.
        data: The images.
        settings: How artifacts are opened.
        stages: Times the work.
    """

    target: Target
    data: VerificationData
    settings: Settings
    stages: Stages

    def run(self, machines: Sequence[Connected], unreached: Sequence[Check], folder: Path) -> Ran:
        """Run every artifact, and the float model if that was not done before.

        Args:
            machines: That answer.
            unreached: Why others do not.
            folder: For the outputs: data may be larger than memory.

        Raises:
            DependencyMissingError: The runtimes of all artifacts are missing.
            RunnerUnreachableError: No runner answers.
            ConversionFailedError: There is no room for the outputs.
        """
        target, dataset = self.target, self.data.dataset
        path = cache_file(target, self.data.description.digest)
        reference = load(path, dataset, target.classes)
        with contextlib.ExitStack() as stack:
            with self.stages.stage("open the artifacts"):
                engines, checks = open_each(
                    lambda runner, load: stack.enter_context(runner.open(load)),
                    target.candidates,
                    machines,
                    self.settings,
                )
            if not engines:
                _see_that_something_failed((*unreached, *checks))
            models: dict[Place | str, Compute] = {place: engine.run for place, engine in engines.items()}
            if reference is None:
                with self.stages.stage("load the float model"):
                    models = {REFERENCE: self._reference(), **models}
            title = f"run {len(models)} models on {len(dataset):,} images"
            with self.stages.stage(title, total=len(dataset)) as done:
                found = run_all(models, dataset, classes=target.classes, folder=folder, progress=done)
        if reference is None:
            reference = found.arrays[REFERENCE]
            keep(path, reference)
        for name, error in found.lost.items():
            if isinstance(name, Place):
                checks.append(lost(name, error, self.settings.required))
        outputs = {place: array for place, array in found.arrays.items() if isinstance(place, Place)}
        return self._comparable(reference, outputs, checks)

    def _reference(self) -> Compute:
        """The float model on what the artifacts take: pixels, where the normalization is inside of them."""
        target, run = self.target, self.target.model.run
        if target.artifact_contract == target.contract:
            return run
        return lambda pixels: run(target.contract.normalize(pixels))

    def _comparable(
        self,
        reference: NDArray[np.float32],
        outputs: Mapping[Place, NDArray[np.float32]],
        checks: Sequence[Check],
    ) -> Ran:
        """Logits beside logits, or probabilities beside probabilities, where a foreign file may mix them."""
        notes: list[str] = []
        # A bundle's artifacts give what its model gives, or are wrong.
        if not isinstance(self.target, BundleTarget):
            made = {place: make_comparable(reference, array) for place, array in outputs.items()}
            # A softmax of the reference on behalf of one is one for all: they are compared with one another.
            references = [theirs for theirs, _, _ in made.values()]
            reference = next((theirs for theirs in references if theirs is not reference), reference)
            outputs = {place: ours for place, (_, ours, _) in made.items()}
            notes = [note for _, _, note in made.values() if note]
        return Ran(
            data=self.data,
            reference=reference,
            outputs=outputs,
            probabilities=are_probabilities(reference),
            notes=tuple(dict.fromkeys(notes)),
            checks=tuple(checks),
        )


def _see_that_something_failed(reasons: Sequence[Check]) -> None:
    """A verification in which nothing ran, and nothing is known to be wrong either, is no verification.

    Args:
        reasons: Why nothing runs.

    Raises:
        DependencyMissingError: The runtimes of all artifacts are missing.
        RunnerUnreachableError: No runner answers.
    """
    if any(check.verdict == "fail" for check in reasons):
        return
    found = "; ".join(f"{check.runner}: {check.sentence}" for check in reasons)
    if any(check.name == "runner" for check in reasons):
        raise RunnerUnreachableError("no artifact could be run", found=found)
    raise DependencyMissingError("no artifact could be run", found=found)
