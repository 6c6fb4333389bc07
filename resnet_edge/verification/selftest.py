"""Does the verification find what is wrong? Known faults are put into a small bundle, one at a time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_edge.errors import GateFailedError, ResnetEdgeError
from resnet_edge.pipeline import VerifyOptions, verify
from resnet_edge.temporary import temporary_folder
from resnet_edge.verification.faults import FAULTS
from resnet_edge.verification.specimen import build_specimen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from resnet_edge.stages import Stages
    from resnet_edge.verification.faults import Fault

MIN_SQNR = 36.0
"""What the int8 files must come to, in dB. The healthy ones have about 41; a user would set it like this."""

MAX_DROP = 10.0
"""Percentage points. Few images are enough to show that healthy files lose less."""

FAILED = ("fail", "inconclusive")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one fault.

    Attributes:
        fault: Its name.
        story: How it comes about.
        caught: Whether the files that are wrong did not pass the right check.
        named: Whether the answer named the tensor, the layer or the file, and blamed no healthy file.
        said: The answer.
    """

    fault: str
    story: str
    caught: bool
    named: bool
    said: str


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What a verification said.

    Attributes:
        failed: Artifacts with the names of checks that they did not pass; empty if the bundle was refused.
        refused: Whether the bundle was refused as a whole.
        guilty: The first guilty layer of every artifact that failed, where layers were compared.
        text: All sentences about failures.
    """

    failed: frozenset[tuple[str, str]]
    refused: bool
    guilty: Mapping[str, str]
    text: str


def run_selftest(stages: Stages, faults: Sequence[Fault] = FAULTS) -> tuple[Finding, ...]:
    """Build a bundle, verify it, and verify a copy of it with each of the faults.

    Raises:
        GateFailedError: The healthy bundle does not pass, so that nothing can be learned from the others.
    """
    with temporary_folder() as folder:
        healthy = build_specimen(folder, stages)
        with stages.stage("verify the healthy bundle"):
            answer = _ask(healthy, layers=True)
        if answer.failed or answer.refused:
            raise GateFailedError(
                "the selftest's healthy bundle does not pass",
                found=answer.text,
                next_step="a defect of resnet-edge or of a runtime: please report it",
            )
        with stages.stage(f"verify {len(faults)} faults", total=len(faults)) as done:
            findings = []
            for fault in faults:
                findings.append(_examine(fault, healthy))
                done(len(findings))
            return tuple(findings)


def _examine(fault: Fault, healthy: Path) -> Finding:
    """One fault, in a copy of the bundle."""
    sick = healthy.with_name("sick")
    shutil.copytree(healthy, sick)
    try:
        fault.into(sick)
        answer = _ask(sick, layers=bool(fault.layer))
    finally:
        shutil.rmtree(sick)
    right = {(artifact, fault.check) for artifact in fault.artifacts} <= answer.failed
    guilty = dict.fromkeys(fault.artifacts, fault.layer) if fault.layer else {}
    return Finding(
        fault=fault.name,
        story=fault.story,
        caught=right if fault.artifacts else answer.refused,
        named=all(text in answer.text for text in fault.says)
        and answer.guilty == guilty
        and {artifact for artifact, _ in answer.failed} <= set(fault.artifacts),
        said=answer.text,
    )


def _ask(bundle: Path, *, layers: bool) -> _Answer:
    """Verify a bundle on the images that it keeps."""
    try:
        # One thread: the network is too small to share out.
        report = verify(bundle, VerifyOptions(min_sqnr=MIN_SQNR, max_drop=MAX_DROP, layers=layers, threads=1))
    except ResnetEdgeError as error:
        return _Answer(failed=frozenset(), refused=True, guilty={}, text=error.render())
    failures = [check for check in report.checks if check.verdict in FAILED]
    failed = frozenset((check.artifact, check.name) for check in failures)
    compared = {
        artifact.path: artifact.layers
        for artifact in report.artifacts
        if artifact.layers is not None and any(artifact.path == name for name, _ in failed)
    }
    sentences = [f"{check.artifact}, {check.name}: {check.sentence}" for check in failures]
    sentences += [f"{artifact}, layers: {found.sentence}" for artifact, found in compared.items()]
    return _Answer(
        failed=failed,
        refused=False,
        guilty={artifact: found.first for artifact, found in compared.items()},
        text="\n".join(sentences),
    )
