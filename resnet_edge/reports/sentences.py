"""What a verification found, in sentences; every form of report says these."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING

from resnet_edge.reports.figures import confidence, counted, percent, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.verification.report import Accuracy, Report, Verdict

ANSWERS: Mapping[Verdict, str] = {
    "pass": "May ship",
    "fail": "Must not ship",
    "inconclusive": "Undecided",
    "missing": "Not verified",
    "unreachable": "Not verified",
}
"""To the question that a user comes with."""

_FOUND: Mapping[Verdict, str] = {
    "unreachable": "without an answer from the runner",
    "missing": "without the runtime",
    "fail": "failed",
    "inconclusive": "undecided",
    "skipped": "skipped",
    "pass": "passed",
}


def tally(report: Report) -> str:
    """``3 of 24 checks failed, 1 undecided, 2 skipped``."""
    if not report.checks:
        return "nothing was checked"
    counts = Counter(check.verdict for check in report.checks)
    found = [(counts[verdict], text) for verdict, text in _FOUND.items() if counts[verdict]]
    total = len(report.checks)
    if counts["pass"] == total:
        return f"all {counted(total, 'check')} passed" if total > 1 else "1 check passed"
    (first, what), *others = found
    rest = "".join(f", {count:,} {text}" for count, text in others)
    return f"{first:,} of {counted(total, 'check')} {what}{rest}"


def subject(report: Report) -> str:
    """What was verified, against what, and on how many images."""
    data = report.data
    images = counted(data.images, "image")
    if data.available > data.images:
        images = f"{data.images:,} of {counted(data.available, 'image')}"
    labels = "" if data.labelled else " without labels"
    return plain(
        f"{report.model} against {report.reference} on {images}{labels} of {data.name}; "
        f"intervals at {confidence(report.confidence)} confidence"
    )


def worst_class(accuracy: Accuracy) -> str:
    """The class that lost most, with its n."""
    worst = accuracy.worst_class
    if worst.accuracy >= worst.reference_accuracy:
        return "No class lost."
    return plain(
        f"Worst class: {worst.label}, {percent(worst.accuracy)} of {counted(worst.images, 'image')}; "
        f"the reference has {percent(worst.reference_accuracy)}."
    )


def paired(accuracy: Accuracy) -> str:
    """What became wrong and what became right, and how surely they differ."""
    drop = accuracy.drop
    return (
        f"Of {counted(accuracy.top1.of, 'image')}, {drop.lost:,} became wrong and {drop.won:,} became right "
        f"(exact McNemar test: p = {drop.p_value:.2g})."
    )


def notes(report: Report) -> list[str]:
    """What else the user should know: about the data, then about the run."""
    return [plain(note) for note in (*report.data.notes, *report.notes)]


def provenance(report: Report) -> list[tuple[str, str]]:
    """What made the report, as pairs of name and text."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    seconds = ", ".join(f"{stage} {time:.1f} s" for stage, time in report.seconds.items())
    pairs = [
        ("Command", shlex.join(report.command) if len(report.command) > 1 else "".join(report.command)),
        ("Created", report.created),
        ("Data", f"{report.data.name}, SHA-256 {report.data.digest}"),
        ("Versions", versions),
        ("Time", seconds),
    ]
    return [(name, plain(text)) for name, text in pairs if text]
