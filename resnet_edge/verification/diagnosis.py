"""Where the error of an artifact arises: layer by layer, and step by step from float to the runtime."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.bundle import cannot_write
from resnet_edge.errors import ModelRejectedError, UsageError
from resnet_edge.verification.bisect import innocence, operator_to_blame, write_reproduction
from resnet_edge.verification.formats import why_not_exposed
from resnet_edge.verification.layers import IMAGES, compare_layers
from resnet_edge.verification.waterfall import images_for, steps_before, waterfall

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.data.datasets import Dataset
    from resnet_edge.engines import Kernels
    from resnet_edge.quantization.requantization import Kernels as Rounding
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.gates import Subject
    from resnet_edge.verification.layer import Layers
    from resnet_edge.verification.report import Check, Step, Verdict
    from resnet_edge.verification.target import Candidate

_UNKNOWN = (
    "what the file was written from is not known, so its layers have nothing to be compared with: layers are "
    "for artifacts of a bundle that was exported with folding"
)


def check_reproduction_folder(folder: Path) -> None:
    """Refuse a place for ``--bisect`` that holds other things, before any work is done.

    Raises:
        UsageError: It is not empty, or no folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "a reproduction goes into a folder of its own",
            where=f"--bisect {folder}",
            found="a folder that is not empty" if folder.is_dir() else "a file",
            next_step="name a new folder",
        )


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Looks into artifacts that run on this machine.

    Attributes:
        dataset: The images, as artifacts take them.
        reference: The float model's outputs on them, (N, classes).
        kernels: What computes ``.tflite`` files.
    """

    dataset: Dataset
    reference: NDArray[np.float32]
    kernels: Kernels
    _looked_into: dict[Candidate, tuple[Quantized, Layers]] = field(default_factory=dict)
    _steps: dict[tuple[int, Rounding], tuple[tuple[str, NDArray[np.float32]], ...]] = field(
        default_factory=dict
    )

    def layers(
        self, candidate: Candidate, quantized: Quantized | None, subject: Subject
    ) -> tuple[Layers | None, Check]:
        """Compare an artifact's layers, and say whether every operator computes what it is to compute.

        Args:
            candidate: The artifact.
            quantized: What it was written from; None where that is not known.
            subject: The artifact and where it runs, for the verdict.
        """
        reason = why_not_exposed(candidate.format) or ("" if quantized else _UNKNOWN)
        if reason or quantized is None:
            return None, subject.check("operators", "skipped", reason)
        try:
            images = self._images(IMAGES)
            layers = compare_layers(candidate.path, candidate.format, quantized, images, kernels=self.kernels)
        except ModelRejectedError as error:
            return None, subject.check("operators", "fail", f"{error.what}: {error.found}")
        self._looked_into[candidate] = quantized, layers
        verdict: Verdict = "fail" if layers.wrong else "pass"
        return layers, subject.check("operators", verdict, layers.sentence)

    def waterfall(
        self, candidate: Candidate, quantized: Quantized, runtime: str, outputs: NDArray[np.float32]
    ) -> tuple[Step, ...]:
        """From the float model over the folded graph and its integers to what the runtime computed.

        Args:
            candidate: The artifact.
            quantized: What it was written from.
            runtime: What ran it, for people.
            outputs: What it computed, (N, classes).
        """
        reference_kernels = candidate.format == "tflite" and self.kernels == "reference"
        rounding: Rounding = "tflite-reference" if reference_kernels else "single"
        key = id(quantized), rounding
        if key not in self._steps:  # artifacts of one recipe share them
            images = self._images(images_for(quantized.graph))
            self._steps[key] = steps_before(quantized, images, rounding=rounding)
        return waterfall(self.reference, (*self._steps[key], (runtime, outputs)))

    def reproduce_worst(self, folder: Path) -> str:
        """Write the worst operator of all artifacts that were looked into as a file of its own.

        Returns:
            What is there, for people.

        Raises:
            ConversionFailedError: A file cannot be written; nothing is left behind.
        """
        if not self._looked_into:
            return "nothing is in the --bisect folder: no artifact's layers could be seen"

        worst = {candidate: operator_to_blame(layers) for candidate, (_, layers) in self._looked_into.items()}
        candidate = min(worst, key=lambda each: innocence(worst[each]))
        quantized, name = self._looked_into[candidate][0], worst[candidate].node
        try:
            script = write_reproduction(
                folder,
                name,
                candidate.path,
                candidate.format,
                quantized,
                self._images(IMAGES),
                kernels=self.kernels,
            )
        except BaseException as error:
            # Half a reproduction misleads, and would keep the next run out of the folder.
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise cannot_write(folder, error) from error
            raise
        if worst[candidate].verdict == "differs in file":
            return f"{name} as {candidate.name} should hold it is a file of its own, and right: run {script}"
        return f"{name} of {candidate.name}, the worst operator, is a file of its own: run {script}"

    def _images(self, count: int) -> NDArray[np.float32]:
        """The first images."""
        return np.concatenate(list(self.dataset.batches(0, min(count, len(self.dataset)))))
