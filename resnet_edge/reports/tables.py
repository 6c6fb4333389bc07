"""The tables of a verification, as text and in reading order; every form of report shows these."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from resnet_edge.reports import figures
from resnet_edge.reports.grid import Cell, Table, name, table
from resnet_edge.verification.layer import WRONG

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resnet_edge.verification.layer import Layer, Layers
    from resnet_edge.verification.report import (
        Accuracy,
        ArtifactReport,
        Check,
        Latency,
        Parity,
        Proportion,
        Report,
        Step,
        Verdict,
    )

WORST = 8
"""Layers and changes that a table shows; the JSON report has all of them."""

_URGENCY: Sequence[Verdict] = ("unreachable", "missing", "fail", "inconclusive", "skipped", "pass")
"""The order in which a user wants to see them."""


def _several_runners(report: Report) -> bool:
    return len({artifact.runner for artifact in report.artifacts}) > 1


def place(report: Report, artifact: str, runner: str) -> str:
    """``resnet8-int8.tflite on qemu``, or what there is of it; no runner where there is only one."""
    parts = (artifact, runner) if _several_runners(report) or not artifact else (artifact,)
    return figures.plain(" on ".join(part for part in parts if part) or "the run")


def place_of(report: Report, found: ArtifactReport) -> str:
    """The artifact's name, and where it was run if that could be several places."""
    return place(report, found.path, found.runner)


def checks_of(report: Report, artifact: ArtifactReport) -> list[Check]:
    """All checks of one artifact on one runner, and those of its file, which hold on every runner."""
    return [
        check
        for check in report.checks
        if check.artifact == artifact.path and check.runner in (artifact.runner, "")
    ]


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """The most urgent verdict; skipped checks count only where there are no others."""
    found = {check.verdict for check in checks}
    if "pass" in found:
        found -= {"skipped"}
    return min(found, key=_URGENCY.index, default="skipped")


def open_checks(report: Report) -> list[Check]:
    """The checks that did not pass, most urgent first."""
    return sorted(
        (check for check in report.checks if check.verdict != "pass"),
        key=lambda check: _URGENCY.index(check.verdict),
    )


def checks(report: Report) -> Table:
    """Every check, those that passed included."""
    rows = [
        (
            name(check.name),
            Cell(text=check.verdict, verdict=check.verdict),
            Cell(text=place(report, check.artifact, check.runner)),
            name(check.sentence),
        )
        for check in report.checks
    ]
    return table(("check<", "verdict<", "where<", "found<"), rows)


def summary(report: Report) -> Table:
    """One row for each artifact on each runner, below the float reference's."""
    several = _several_runners(report)
    shares = [share for artifact in report.artifacts for share in _shares(artifact) if share]
    sizes = {share.of for share in shares}
    n = f" (n={sizes.pop():,})" if len(sizes) == 1 else ""
    columns = (
        *("artifact<", "runner<", "verdict<", "size", "SQNR", f"agreement{n}", f"top-1{n}", "drop"),
        *("latency", "peak RSS"),
    )
    rows = [
        (
            Cell(text=figures.plain(artifact.path), detail=figures.plain(artifact.engine)),
            name(artifact.runner) if several else Cell(),
            _verdict_cell(report, artifact),
            Cell(text=figures.kilobytes(artifact.size)),
            _noise(artifact.parity),
            *(_share(share, with_n=not n) for share in _shares(artifact)),
            _drop(artifact.accuracy),
            *_latency_cells(artifact.latency),
        )
        for artifact in report.artifacts
    ]
    labelled = next((each.accuracy for each in report.artifacts if each.accuracy), None)
    if labelled:
        reference = {0: Cell(text="float reference"), 6: _share(labelled.reference_top1, with_n=not n)}
        rows.insert(0, tuple(reference.get(index, Cell()) for index in range(len(columns))))
    return table(columns, rows)


def parities(report: Report) -> Table:
    """The other figures of every artifact that was run."""
    columns = (
        *("artifact<", "max error", "mean error", "largest reference", "max LSB", "mean LSB", "cosine"),
        *("KL divergence", "top-5 agreement", "top-5"),
    )
    rows = [
        (
            Cell(text=place_of(report, artifact)),
            *_errors(artifact.parity),
            _share(artifact.parity.top5_agreement, with_n=True),
            _share(artifact.accuracy.top5 if artifact.accuracy else None, with_n=True),
        )
        for artifact in report.artifacts
        if artifact.parity
    ]
    return table(columns, rows)


def _errors(parity: Parity) -> tuple[Cell, ...]:
    return (
        Cell(text=figures.error(parity.max_abs_error)),
        Cell(text=figures.error(parity.mean_abs_error)),
        Cell(text=figures.error(parity.max_abs_reference)),
        Cell() if parity.max_lsb is None else Cell(text=f"{parity.max_lsb:.1f}"),
        Cell() if parity.mean_lsb is None else Cell(text=f"{parity.mean_lsb:.2f}"),
        Cell(text=f"{parity.cosine:.6f}"),
        Cell(text=figures.error(parity.kl_divergence)),
    )


def _verdict_cell(report: Report, artifact: ArtifactReport) -> Cell:
    verdict = verdict_of(checks_of(report, artifact))
    if verdict == "pass" and artifact.parity is None:
        verdict = "skipped"  # a sound file says nothing about a runner that did not run it
    return Cell(text=verdict, verdict=verdict)


def _noise(parity: Parity | None) -> Cell:
    if parity is None:
        return Cell(text="not run")
    if parity.non_finite:
        return Cell(
            text=figures.decibels(parity.sqnr_db), detail=f"{parity.non_finite:,} not finite", verdict="fail"
        )
    return Cell(text=figures.decibels(parity.sqnr_db))


def _shares(artifact: ArtifactReport) -> tuple[Proportion | None, Proportion | None]:
    """Agreement and top-1."""
    return (
        artifact.parity.top1_agreement if artifact.parity else None,
        artifact.accuracy.top1 if artifact.accuracy else None,
    )


def _share(value: Proportion | None, *, with_n: bool) -> Cell:
    """A share; n is here where it is not the same in the whole table."""
    if value is None:
        return Cell()
    n = f", n {value.of:,}" if with_n else ""
    return Cell(text=figures.percent(value.share), detail=figures.interval(value) + n)


def _drop(accuracy: Accuracy | None) -> Cell:
    if accuracy is None:
        return Cell()
    return Cell(text=figures.points(accuracy.drop), detail=figures.points_interval(accuracy.drop))


def _latency_cells(latency: Latency | None) -> tuple[Cell, Cell]:
    """Median and peak memory."""
    if latency is None:
        return Cell(), Cell()
    return (
        Cell(
            text=figures.milliseconds(latency.median_ms),
            detail="emulated" if latency.emulated else f"n {latency.runs:,}",
        ),
        Cell(text=figures.megabytes(latency.peak_memory)),
    )


def distinct_steps(report: Report) -> list[tuple[Step, list[ArtifactReport]]]:
    """The waterfall's steps with the artifacts on whose way they lie.

    The folded graph and the integer reference are the same step for every artifact made from them, and
    are there once; the artifacts that come from one of them follow it.
    """
    ways: dict[tuple[Step, ...], list[ArtifactReport]] = {}
    for artifact in report.artifacts:
        ways.setdefault(artifact.waterfall[:-1], []).append(artifact)
    steps: dict[Step, list[ArtifactReport]] = {}
    for artifacts in ways.values():
        for artifact in artifacts:
            for step in artifact.waterfall:
                steps.setdefault(step, []).append(artifact)
    return list(steps.items())


def waterfall(report: Report) -> Table:
    """Where the error arises, step by step."""
    rows = [
        (
            name(step.name),
            Cell(text=place_of(report, whose[0]) if len(whose) == 1 else f"{len(whose)} artifacts"),
            Cell(text=figures.decibels(step.sqnr_db)),
            Cell(text=figures.decibels(step.step_sqnr_db)),
            Cell(text=f"{step.changed:,} of {step.images:,}"),
            Cell(text=f"{step.step_changed:,}"),
        )
        for step, whose in distinct_steps(report)
    ]
    columns = ("step<", "of<", "SQNR", "of this step", "changed predictions", "by this step")
    return table(columns, rows)


def worst_layers(layers: Layers, limit: int = WORST) -> list[Layer]:
    """Those that compute something else, then those with the largest error of their own."""

    def order(layer: Layer) -> tuple[bool, float, float]:
        return (
            layer.verdict not in WRONG,
            math.inf if layer.alone_db is None else layer.alone_db,
            math.inf if layer.as_run_db is None else layer.as_run_db,
        )

    return sorted(layers.layers, key=order)[:limit]


def layers(found: Layers, limit: int = WORST) -> Table:
    """The worst layers."""
    rows = [
        (
            name(layer.node),
            Cell(
                text=layer.verdict,
                detail=figures.plain(layer.reason),
                verdict="fail" if layer.verdict in WRONG else None,
            ),
            Cell(text=figures.decibels(layer.as_run_db)),
            Cell(text=figures.NONE if layer.verdict == "not run" else figures.decibels(layer.alone_db)),
            Cell() if layer.max_lsb is None else Cell(text=f"{layer.max_lsb:,} LSB"),
            name(layer.operator),
        )
        for layer in worst_layers(found, limit)
    ]
    return table(("layer<", "verdict<", "as run", "alone", "off by", "operator<"), rows)


def latencies(report: Report) -> Table:
    """Times of every artifact that was timed."""
    rows = [
        (Cell(text=place_of(report, artifact)), *_times(artifact.latency))
        for artifact in report.artifacts
        if artifact.latency
    ]
    columns = (
        "artifact<",
        "median",
        "p90",
        "p99",
        "runs",
        "speed-up",
        "load",
        "peak RSS",
        "batch",
        "threads",
        "clock",
    )
    return table(columns, rows)


def _times(latency: Latency) -> tuple[Cell, ...]:
    speedup = latency.speedup
    return (
        Cell(
            text=figures.milliseconds(latency.median_ms),
            detail="emulated" if latency.emulated else "",
        ),
        Cell(text=figures.milliseconds(latency.p90_ms)),
        Cell(text=figures.milliseconds(latency.p99_ms)),
        Cell(text=f"{latency.runs:,}", detail=f"after {latency.warmup:,}"),
        Cell(text=figures.ratio(speedup), detail=figures.ratio_interval(speedup)) if speedup else Cell(),
        Cell(text=figures.milliseconds(latency.load_ms)),
        Cell(text=figures.megabytes(latency.peak_memory)),
        Cell(text=f"{latency.batch:,}"),
        Cell(text=f"{latency.threads:,}"),
        _condition(latency),
    )


def _condition(latency: Latency) -> Cell:
    """The clock after the runs, the governor, and how warm it has become; empty where nothing is known."""
    before, after = latency.before, latency.after
    if before is None or after is None:
        return Cell()
    warmth = (
        f"{before.temperature_c:.0f} to {after.temperature_c:.0f} °C"
        if before.temperature_c is not None and after.temperature_c is not None
        else ""
    )
    clock = "" if after.clock_mhz is None else f"{after.clock_mhz:,.0f} MHz"
    return Cell(text=clock, detail=", ".join(filter(None, [after.governor, warmth])))


def changes(accuracy: Accuracy, limit: int = WORST) -> Table:
    """The most frequent changes of prediction."""
    rows = [
        (
            name(change.reference),
            name(change.artifact),
            Cell(text=f"{change.images:,}"),
            Cell(text=f"{change.lost:,}"),
            Cell(text=f"{change.won:,}"),
        )
        for change in accuracy.changes[:limit]
    ]
    return table(("reference says<", "artifact says<", "images", "became wrong", "became right"), rows)


def machines(report: Report) -> Table:
    """What each runner is."""
    rows = [
        (
            name(runner),
            Cell(text=figures.plain(machine.cpu), detail=figures.plain(" ".join(machine.features))),
            name(f"{machine.system} {machine.architecture}"),
            Cell(text=str(machine.cores)),
            Cell() if machine.memory is None else Cell(text=figures.gigabytes(machine.memory)),
            name(f"{machine.python}{', emulated' if machine.emulated else ''}"),
        )
        for runner, machine in report.machines.items()
    ]
    return table(("runner<", "CPU<", "system<", "cores", "memory", "Python<"), rows)
