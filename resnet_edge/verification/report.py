"""What a verification found, as one value; every form of report is rendered from it and computes nothing.

Shares and rates are between 0 and 1 and drops are in percentage points; times are milliseconds, sizes bytes.
Infinite ratios (equal outputs) are None, because JSON has no infinity.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.runners import Condition, Machine
    from resnet_edge.verification.layer import Layers

SCHEMA = 1
"""Raised when a reader of the older form would misread the newer one."""

Verdict: TypeAlias = Literal["pass", "fail", "inconclusive", "skipped", "missing", "unreachable"]
"""``skipped`` is harmless and has a reason; ``missing`` (a runtime) and ``unreachable`` (a runner) were
required."""

_EXIT_CODES: Mapping[Verdict, int] = {"unreachable": 6, "missing": 4, "fail": 1, "inconclusive": 7}
"""In the order in which they win where several apply."""


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """So many of so many, with a two-sided interval (Wilson).

    Attributes:
        count: How many.
        of: Of how many.
        low: Lower end of the interval of the share, 0 to 1.
        high: Upper end.
    """

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.count / self.of


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Outputs against those of the float reference, over all images and classes.

    Attributes:
        images: How many.
        non_finite: NaN and infinite values among the outputs; the figures below are over the images without.
        max_abs_error: Largest difference of an output.
        mean_abs_error: Mean of the differences.
        max_abs_reference: Largest output of the reference, by magnitude.
        sqnr_db: 10 log10 of signal power over noise power; None where the outputs are equal.
        cosine: Of the angle between all outputs and all reference outputs.
        top1_agreement: Images with the same first class; ties go to the lowest index.
        top5_agreement: Images whose reference class is among the artifact's first five; None below 6 classes.
        kl_divergence: Mean of KL(reference || artifact) in nats, over softmax of logits or the probabilities.
        max_lsb: Largest difference in steps of the output's scale; None for a float output.
        mean_lsb: Mean of the differences in such steps.
    """

    images: int
    non_finite: int
    max_abs_error: float
    mean_abs_error: float
    max_abs_reference: float
    sqnr_db: float | None
    cosine: float
    top1_agreement: Proportion
    top5_agreement: Proportion | None
    kl_divergence: float
    max_lsb: float | None = None
    mean_lsb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Accuracy lost against the reference on the same images: reference minus artifact.

    Attributes:
        points: Percentage points; below zero where the artifact is better.
        low: Lower end of the two-sided interval.
        high: Upper end.
        lost: Images that only the reference has right.
        won: Images that only the artifact has right.
        p_value: Of the exact McNemar test that both are equally often right.
    """

    points: float
    low: float
    high: float
    lost: int
    won: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """One class: its name or index, and how often each has its images right."""

    label: str
    images: int
    accuracy: float
    reference_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """Predictions that changed from one class to another, and how many of them were right before or after."""

    reference: str
    artifact: str
    images: int
    lost: int
    won: int


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Predictions against labels.

    Attributes:
        top1: Right first class.
        top5: Right class among the first five; None below 6 classes.
        reference_top1: The float reference's.
        drop: Top-1 lost.
        worst_class: The class that lost most.
        changes: Changed predictions by pair of classes, most frequent first.
    """

    top1: Proportion
    top5: Proportion | None
    reference_top1: Proportion
    drop: Drop
    worst_class: ClassAccuracy
    changes: tuple[Change, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the error waterfall.

    Attributes:
        name: ``folded graph``, ``int8 integer reference``, ``LiteRT (XNNPACK)``, ...
        sqnr_db: Of this step's outputs against the float reference; None where they are equal.
        step_sqnr_db: Against the step before.
        changed: Predictions that differ from the float reference's.
        step_changed: Predictions that differ from those of the step before.
        images: On how many images.
    """

    name: str
    sqnr_db: float | None
    step_sqnr_db: float | None
    changed: int
    step_changed: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A speed-up with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long one batch takes.

    Attributes:
        batch: Images a run.
        threads: Within an operator.
        warmup: Runs before the measured ones.
        runs: Measured runs, interleaved with those of the other artifacts.
        median_ms: Median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        load_ms: From the call of the runtime to a model ready to run.
        peak_memory: Bytes; the process's largest resident set.
        speedup: Against the float32 artifact of the same format on the same runner; None without one.
        emulated: The times say nothing about real hardware.
        before: The processor's condition before the measured runs; None in an emulator.
        after: And after them.
    """

    batch: int
    threads: int
    warmup: int
    runs: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    load_ms: float
    peak_memory: int
    speedup: Ratio | None = None
    emulated: bool = False
    before: Condition | None = None
    after: Condition | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One gate, or a check without a limit of the user's.

    Attributes:
        name: ``files``, ``finite``, ``max-error``, ``sqnr``, ``agreement``, ``drop``, ``speedup``,
            ``operators``, ``machine``, ``baseline``, ``runtime``, ``runner``.
        artifact: File name; empty where it is about a runner.
        runner: Where.
        verdict: What came out.
        sentence: What was found on how many images, what is allowed, and what to do; never empty.
        found: The figure, if there is one.
        limit: What it may be.
    """

    name: str
    artifact: str
    runner: str
    verdict: Verdict
    sentence: str
    found: float | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactReport:
    """One artifact on one runner.

    Attributes:
        path: File name.
        format: Converter's name.
        precision: ``fp32`` or the recipe.
        size: Bytes.
        runner: Where it was run.
        engine: What ran it, with its version and kernels: ``LiteRT 2.3.0 (XNNPACK)``.
        parity: Against the reference; None where it was not run.
        accuracy: With labels.
        waterfall: Where the error arises, step by step.
        layers: With ``--layers``.
        latency: With ``--latency``.
    """

    path: str
    format: str
    precision: str
    size: int
    runner: str
    engine: str
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    waterfall: tuple[Step, ...] = ()
    layers: Layers | None = None
    latency: Latency | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A first class and what the model gives it."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class ChangedImage:
    """An image whose prediction changed in at least one artifact.

    Attributes:
        index: In the data.
        png: The pixels as a PNG, base64; empty where they are not at hand.
        truth: The label; empty without labels.
        reference: What the float reference says.
        artifacts: What the artifacts say that disagree, by file name (and runner, where there are several).
    """

    index: int
    png: str
    truth: str
    reference: Prediction
    artifacts: Mapping[str, Prediction]


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images.

    Attributes:
        name: As the user gave it; ``images held back from`` these or ``seeded images`` without ``--data``.
        images: How many were used.
        available: How many there are.
        labelled: Whether accuracy could be measured.
        digest: SHA-256 of images and contract.
        notes: What a user should know about them.
    """

    name: str
    images: int
    available: int
    labelled: bool
    digest: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole verification.

    Attributes:
        subject: The bundle's or file's name.
        model: Name of the model.
        reference: What ran the float model: ``reference.keras in Keras 3.15.1``.
        data: The images.
        confidence: Of every interval and gate.
        machines: By runner.
        artifacts: Each artifact on each runner, in the manifest's order.
        checks: All verdicts.
        changed: Some images whose prediction changed.
        notes: What else the user should know.
        versions: Packages that had a hand in it.
        command: The command line, or the call.
        created: Time, UTC, ISO 8601.
        seconds: Wall-clock time by stage.
    """

    subject: str
    model: str
    reference: str
    data: Data
    confidence: float
    machines: Mapping[str, Machine]
    artifacts: tuple[ArtifactReport, ...]
    checks: tuple[Check, ...]
    changed: tuple[ChangedImage, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    created: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The one that decides: the first of unreachable, missing, fail and inconclusive that occurs."""
        found = {check.verdict for check in self.checks}
        return next((verdict for verdict in _EXIT_CODES if verdict in found), "pass")

    @property
    def exit_code(self) -> int:
        """The command's."""
        return _EXIT_CODES.get(self.verdict, 0)

    def to_json(self) -> dict[str, Any]:
        """As plain values, in a fixed order; see ``docs/report.md``."""
        summary = {"kind": "resnet-edge report", "schema": SCHEMA, "verdict": self.verdict}
        return {**summary, "exit_code": self.exit_code, **dataclasses.asdict(self)}
