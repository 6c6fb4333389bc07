"""What the figures may be: one check a limit, and the limits that hold where the user gives none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_edge.errors import UsageError
from resnet_edge.quantization.parity import COLLAPSED_DB
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.verification.intervals import POWER, agreement_verdict, non_inferior
from resnet_edge.verification.proof import FLOAT_TOLERANCE, HALF_TOLERANCE
from resnet_edge.verification.report import Check

if TYPE_CHECKING:
    from resnet_edge.verification.report import Accuracy, Latency, Parity, Ratio, Verdict

WEIGHTS_ONLY_DB = 15.0
"""Least SQNR where 8 bits are the weights' alone (``int16x8``, ``int8-weights``): trained ResNets of 8 and 20
layers have 36 to 50 dB, which leaves 20 dB for deeper ones."""

_SEEDED = (
    "seeded inputs decide nothing about integers, whose ranges are set for images: give some with --data DATA"
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the user asks for; None takes the default of the artifact's precision, if it has one.

    There is no default for agreement: a wrong input scale was seen to cost 55 steps of the output with every
    prediction unchanged, so it shows less than the others. There is none for the drop and the speed-up
    either, as only the user knows what an application bears.

    Attributes:
        max_error: Largest absolute difference of an output. By default, for float32, ``FLOAT_TOLERANCE`` of
            the reference's largest output (at least of 1), because runtimes order their sums differently; for
            float16 constants ``HALF_TOLERANCE`` of it, because they have 11 significant bits. No default for
            integers, whose largest error depends on how wide the output's range is.
        min_agreement: Percent of the images with the float prediction.
        min_sqnr: dB. By default ``COLLAPSED_DB`` where activations are 8 bits: a file below it is of no use,
            whatever the model; how far above it a good file comes depends on the model. ``WEIGHTS_ONLY_DB``
            where only weights are.
        max_drop: Percentage points of top-1 accuracy.
        min_speedup: Times as fast as the float32 artifact of the same format.
        confidence: Of every decision that is made on a sample.

    Raises:
        UsageError: A limit is outside of its range.
    """

    max_error: float | None = None
    min_agreement: float | None = None
    min_sqnr: float | None = None
    max_drop: float | None = None
    min_speedup: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        ranges = {
            "--max-error": (self.max_error, 0, float("inf")),
            "--min-agreement": (self.min_agreement, 0, 100),
            "--min-sqnr": (self.min_sqnr, float("-inf"), float("inf")),
            "--max-drop": (self.max_drop, 0, 100),
            "--min-speedup": (self.min_speedup, 0, float("inf")),
            "--confidence": (self.confidence, 0.5, 0.9999),
        }
        for option, (value, low, high) in ranges.items():
            # Infinite limits decide nothing, and JSON cannot hold them.
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                ends = f"{low:g} to {high:g}" if math.isfinite(high) else f"finite numbers from {low:g}"
                raise UsageError(f"{option} cannot be {value:g}", allowed=ends)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which artifact is checked, and how it was run.

    Attributes:
        artifact: File name.
        runner: Where it was run.
        precision: ``fp32``, or the built-in recipe that its recipe is a variant of; anything else is taken
            for integers throughout.
        half: The float model itself computes in float16.
        tuned: Its weights were pruned or clustered, and are not the float model's.
        seeded: The inputs were made up; they are no images.
        classes: Of the model; 0 where nobody has counted.
        layers_tell: ``--layers`` would say more: it was not given, and this artifact's can be compared.
    """

    artifact: str
    runner: str
    precision: str
    half: bool = False
    tuned: bool = False
    seeded: bool = False
    classes: int = 0
    layers_tell: bool = False

    @property
    def tolerance(self) -> float | None:
        """Allowed share of the largest output; None for integers and tuned weights: they differ by intent."""
        if self.tuned:
            return None
        if self.precision == "fp32":
            return HALF_TOLERANCE if self.half else FLOAT_TOLERANCE
        recipe = RECIPES.get(self.precision)
        return HALF_TOLERANCE if recipe is not None and recipe.arithmetic == "float16" else None

    @property
    def least_sqnr(self) -> float:
        """In dB, where the user gives no limit."""
        recipe = RECIPES.get(self.precision)
        coarse = self.tuned or recipe is None or recipe.arithmetic == "int8"
        return COLLAPSED_DB if coarse else WEIGHTS_ONLY_DB

    @property
    def undecidable(self) -> bool:
        """Whether what it ran on tells nothing: ranges of integer activations are set for images."""
        recipe = RECIPES.get(self.precision)
        integer = self.precision != "fp32" and (recipe is None or recipe.integer)
        return self.seeded and integer

    def check(
        self,
        name: str,
        verdict: Verdict,
        sentence: str,
        *,
        found: float | None = None,
        limit: float | None = None,
    ) -> Check:
        """A check on this artifact."""
        return Check(
            name=name,
            artifact=self.artifact,
            runner=self.runner,
            verdict=verdict,
            sentence=sentence,
            found=found,
            limit=limit,
        )


def check_parity(parity: Parity, limits: Limits, subject: Subject) -> list[Check]:
    """NaN first, beside which no other figure counts; then the errors, and the agreement if asked for."""
    checks = [_check_finite(parity, subject)]
    if parity.non_finite:
        return checks
    if limits.max_error is not None or subject.tolerance is not None:
        checks.append(_check_error(parity, limits.max_error, subject))
    if limits.min_sqnr is not None or subject.tolerance is None:
        checks.append(_check_sqnr(parity, limits.min_sqnr, subject))
    if limits.min_agreement is not None:
        checks.append(_check_agreement(parity, limits.min_agreement, limits.confidence, subject))
    return checks


def _check_finite(parity: Parity, subject: Subject) -> Check:
    """Whether every output is a number."""
    count = parity.non_finite
    sentence = f"{count or 'no'} NaN or infinite outputs on {_on(parity, subject)}, none allowed"
    if count:
        layers = "find the first layer that has one with --layers"
        sentence += f"; {layers if subject.layers_tell else 'check --preprocess'}"
    return subject.check("finite", "fail" if count else "pass", sentence, found=count, limit=0)


def _check_error(parity: Parity, asked: float | None, subject: Subject) -> Check:
    """The largest error."""
    found, limit = parity.max_abs_error, asked
    why = ""
    if limit is None:
        tolerance = subject.tolerance or FLOAT_TOLERANCE
        limit = tolerance * max(1.0, parity.max_abs_reference)
        why = f" ({tolerance:g} of the largest output, at least of 1)"
    verdict, advice = _settle(found <= limit, subject)
    sentence = f"max abs error {found:.3g} on {_on(parity, subject)}, at most {limit:.3g}{why}{advice}"
    return subject.check("max-error", verdict, sentence, found=found, limit=limit)


def _check_sqnr(parity: Parity, asked: float | None, subject: Subject) -> Check:
    """The ratio of signal and noise."""
    limit = subject.least_sqnr if asked is None else asked
    found = parity.sqnr_db
    verdict, advice = _settle(found is None or found >= limit, subject)
    figure = "equal outputs" if found is None else f"SQNR {found:.1f} dB"
    sentence = f"{figure} on {_on(parity, subject)}, at least {limit:g} dB{advice}"
    return subject.check("sqnr", verdict, sentence, found=found, limit=limit)


def _check_agreement(parity: Parity, minimum: float, confidence: float, subject: Subject) -> Check:
    """How often the prediction is the float model's."""
    agreement = parity.top1_agreement
    verdict, more = agreement_verdict(agreement.count, agreement.of, minimum / 100, confidence)
    if verdict == "inconclusive" and not subject.undecidable:
        advice = _more_images(more)
    else:
        verdict, advice = _settle(verdict == "pass", subject)
    sentence = (
        f"float prediction on {agreement.count:,} of {_on(parity, subject)} ({agreement.share:.2%}, "
        f"{_interval(100 * agreement.low, 100 * agreement.high)} %), at least {minimum:g} % at "
        f"{confidence:.3g} one-sided confidence{advice}"
    )
    return subject.check("agreement", verdict, sentence, found=100 * agreement.share, limit=minimum)


def _settle(good: bool, subject: Subject) -> tuple[Verdict, str]:
    """The verdict on a figure of all inputs, and what to do where it is not a pass."""
    if subject.undecidable:
        return "inconclusive", f"; {_SEEDED}"
    if good:
        return "pass", ""
    return "fail", f"{_where_to_look(subject)}; check --preprocess"


def _where_to_look(subject: Subject) -> str:
    """What finds the layer that is to blame."""
    return "; find where the error arises with --layers" if subject.layers_tell else ""


def _on(parity: Parity, subject: Subject) -> str:
    """The number of inputs."""
    return f"{parity.images:,} {'seeded inputs' if subject.seeded else 'images'}"


def _interval(low: float, high: float) -> str:
    """Both ends of an interval."""
    return f"interval {low:.2f} to {high:.2f}"


def _more_images(more: int | None) -> str:
    """What to do about too few images."""
    if more is None:
        return (
            "; so far the figure is the limit itself, so it cannot be said how many images would decide: "
            "give more with --data, or another limit"
        )
    return (
        f"; some {more:,} more images would decide with {POWER:.0%} probability if the true rates are those "
        "observed: give more with --data"
    )


def check_accuracy(accuracy: Accuracy | None, limits: Limits, subject: Subject) -> list[Check]:
    """The drop, if a limit is asked for; and whether the float model is a sound baseline.

    Args:
        accuracy: None where the images have no labels: a gate that cannot decide is no gate that passed.
        limits: What the user asks for.
        subject: The artifact.
    """
    if accuracy is None:
        return [] if limits.max_drop is None else [_check_drop_without_labels(limits.max_drop, subject)]
    checks = []
    if limits.max_drop is not None:
        checks.append(_check_drop(accuracy, limits.max_drop, limits.confidence, subject))
    if subject.classes > 1 and accuracy.reference_top1.low <= 1 / subject.classes:
        checks.append(_check_guessing(accuracy, limits, subject))
    elif subject.tolerance is None:
        checks.append(_check_baseline(accuracy, limits.confidence, subject))
    return checks


def _check_drop(accuracy: Accuracy, limit: float, confidence: float, subject: Subject) -> Check:
    """Non-inferiority to the float model."""
    drop, images = accuracy.drop, accuracy.top1.of
    verdict, more = non_inferior(drop.lost, drop.won, images, limit, confidence)
    advice = {
        "pass": "",
        "inconclusive": _more_images(more),
        "fail": f"{_where_to_look(subject)}; another --recipe or --override may lose less",
    }[verdict]
    sentence = (
        f"top-1 {accuracy.reference_top1.share:.2%} to {accuracy.top1.share:.2%} on {images:,} images "
        f"({drop.lost:,} lost, {drop.won:,} won): drop of {drop.points:.2f} points "
        f"({_interval(drop.low, drop.high)}), at most {limit:g} at {confidence:.3g} one-sided "
        f"confidence{advice}"
    )
    return subject.check("drop", verdict, sentence, found=drop.points, limit=limit)


def _check_drop_without_labels(limit: float, subject: Subject) -> Check:
    """Nothing says which predictions are right."""
    sentence = (
        f"the images have no labels, so the drop, at most {limit:g} points, was not measured; give labelled "
        "images with --data"
    )
    return subject.check("drop", "inconclusive", sentence, limit=limit)


def _check_baseline(accuracy: Accuracy, confidence: float, subject: Subject) -> Check:
    """Rounding does not teach: where integers beat float by more than chance, float was run wrongly."""
    drop = accuracy.drop
    suspect = drop.won > drop.lost and drop.p_value < 1 - confidence
    sentence = (
        f"{drop.won:,} won and {drop.lost:,} lost against the float model on {accuracy.top1.of:,} images "
        f"(McNemar p = {drop.p_value:.2g}, suspect below {1 - confidence:.2g})"
    )
    if suspect:
        sentence += (
            ": significantly better than float, so the float baseline is suspect and the drop means little; "
            "check --preprocess, and the float model's accuracy on these images"
        )
    # Not a failure: the file may well be right, and chance alone does this to one file in forty. "skipped"
    # shows the reason in every report, JUnit's included, and leaves the exit code to the gates.
    return subject.check("baseline", "skipped" if suspect else "pass", sentence, found=drop.p_value)


def _check_guessing(accuracy: Accuracy, limits: Limits, subject: Subject) -> Check:
    """What does no better than chance has nothing to lose: any file passes a gate on the drop."""
    reference = accuracy.reference_top1
    sentence = (
        f"the float model is right on {reference.count:,} of {reference.of:,} images ({reference.share:.2%}, "
        f"{_interval(100 * reference.low, 100 * reference.high)} %), not demonstrably better than guessing "
        f"among {subject.classes:,} classes, so the drop means nothing; check that the labels count as the "
        "model's outputs do (from 0, in the same order), and --preprocess; or give more images"
    )
    verdict: Verdict = "skipped" if limits.max_drop is None else "inconclusive"
    return subject.check("baseline", verdict, sentence, found=reference.share, limit=1 / subject.classes)


def check_speedup(latency: Latency | None, limits: Limits, subject: Subject) -> list[Check]:
    """How much faster than float32, if a limit is asked for and the artifact is not the float32 one.

    Args:
        latency: None where the artifact could not be timed: a gate that cannot decide has not passed.
        limits: What the user asks for.
        subject: The artifact.
    """
    limit = limits.min_speedup
    if limit is None or subject.precision == "fp32":
        return []
    if latency is None:
        sentence = f"it could not be timed, and at least {limit:g} times as fast as float32 was asked for; "
        return [subject.check("speedup", "inconclusive", f"{sentence}run it again", limit=limit)]
    ratio = latency.speedup
    verdict: Verdict
    if latency.emulated:
        verdict, figure = "skipped", f"{latency.median_ms:.3g} ms in an emulator"
        advice = "; this says nothing about the device: measure there with --runner ssh://HOST"
    elif ratio is None:
        verdict, figure = "inconclusive", f"{latency.median_ms:.3g} ms"
        advice = (
            "; there is no float32 artifact of this format to compare with: export one, or let --artifact "
        )
        advice += "include it"
    else:
        figure = f"{ratio.value:.2f} times as fast as float32 ({_interval(ratio.low, ratio.high)})"
        verdict, advice = _compare_speed(ratio, limit)
    sentence = (
        f"{figure} over {latency.runs:,} runs of {latency.batch:,} images, at least {limit:g} times{advice}"
    )
    found = None if ratio is None else ratio.value
    return [subject.check("speedup", verdict, sentence, found=found, limit=limit)]


def _compare_speed(ratio: Ratio, limit: float) -> tuple[Verdict, str]:
    """The verdict on a speed-up by its interval, and what to do."""
    if ratio.low >= limit:
        return "pass", ""
    if ratio.high < limit:
        return "fail", "; resnet-edge inspect shows how much of the file runs in integers"
    return "inconclusive", "; measure more runs, on a machine that does nothing else"
