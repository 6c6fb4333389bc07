"""The plots of a verification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from resnet_edge.reports import figures, tables
from resnet_edge.reports.svg import BAD, GRID, INK, MUTED, SERIES, Plot, draw
from resnet_edge.verification.layer import WRONG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

    from resnet_edge.verification.layer import Layer, Layers
    from resnet_edge.verification.report import ArtifactReport, Report, Step

_MARKERS: Mapping[str, str] = {"tflite": "o", "onnx": "s", "savedmodel": "^"}
"""By format; a plug-in's is a diamond."""

_LOWEST_DB = -40.0
"""Layers below are drawn here: noise with ten thousand times the signal's power is as bad as any."""

_ROW = 46
"""Units for a bar with the line of text above it."""


def trade_off(report: Report, against: Literal["size", "latency"]) -> Plot | None:
    """Accuracy, or SQNR where there are no labels, against what it costs; None with nothing to plot."""
    labelled = any(artifact.accuracy for artifact in report.artifacts)
    quality = _top1 if labelled else _sqnr
    cost = _kilobytes if against == "size" else _median
    found = [
        (artifact, x, y)
        for artifact in report.artifacts
        if (x := cost(artifact)) is not None and (y := quality(artifact)) is not None
    ]
    if not found:
        return None
    what, unit = ("Top-1", "%") if labelled else ("SQNR", "dB")
    cost_unit = "kB" if against == "size" else "ms"

    def paint(axes: Axes) -> None:
        for artifact, x, y in found:
            _point(axes, report, artifact, x, y)
        if labelled:
            _reference_line(axes, report)
        axes.set_xlim(left=0)
        axes.margins(0.08)
        axes.set_xlabel(f"{against} in {cost_unit}")
        axes.set_ylabel(f"{what} in {unit}")
        _legend(axes)

    description = "; ".join(
        f"{tables.place_of(report, artifact)}: {y:.1f} {unit} at {x:,.3g} {cost_unit}"
        for artifact, x, y in found
    )
    title = f"{what} against {against}"
    return draw(title, description, 230 + 22 * (len(found) + labelled), paint)


def _top1(artifact: ArtifactReport) -> float | None:
    return 100 * artifact.accuracy.top1.share if artifact.accuracy else None


def _sqnr(artifact: ArtifactReport) -> float | None:
    return artifact.parity.sqnr_db if artifact.parity else None


def _kilobytes(artifact: ArtifactReport) -> float | None:
    return artifact.size / 1000


def _median(artifact: ArtifactReport) -> float | None:
    """None for an emulator's, too: it says nothing about hardware."""
    latency = artifact.latency
    return None if latency is None or latency.emulated else latency.median_ms


def _point(axes: Axes, report: Report, artifact: ArtifactReport, x: float, y: float) -> None:
    """One artifact; its interval, if it has one."""
    precisions = list(dict.fromkeys(each.precision for each in report.artifacts))
    color = SERIES[precisions.index(artifact.precision) % len(SERIES)]
    if artifact.accuracy:
        top1 = artifact.accuracy.top1
        axes.plot((x, x), (100 * top1.low, 100 * top1.high), color=color, linewidth=1.5, alpha=0.6)
    axes.plot(
        x,
        y,
        color=color,
        marker=_MARKERS.get(artifact.format, "D"),
        markersize=9,
        linestyle="none",
        label=_short(tables.place_of(report, artifact)),
    )


def _reference_line(axes: Axes, report: Report) -> None:
    top1 = next(each.accuracy.reference_top1 for each in report.artifacts if each.accuracy)
    axes.axhline(100 * top1.share, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="float reference")


def _legend(axes: Axes) -> None:
    figure = axes.get_figure()
    if figure is not None:
        figure.legend(loc="outside lower left", handletextpad=0.4, labelspacing=0.35)


def _short(name: str, longest: int = 38) -> str:
    """A name that fits; Matplotlib leaves out of a legend what begins with an underscore."""
    text = figures.plain(name)
    text = text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 2 + 3 :]}"
    return f" {text}" if text.startswith("_") else text


def layers(place: str, found: Layers) -> Plot:
    """SQNR by depth: as run, with the errors of all layers before, and of each layer alone."""

    def paint(axes: Axes) -> None:
        _line(axes, found, "as run", lambda layer: layer.as_run_db, SERIES[0], "-")
        _line(axes, found, "alone", lambda layer: layer.alone_db, SERIES[1], "none")
        _guilty(axes, found)
        given = [ratio for each in found.layers for ratio in (each.as_run_db, each.alone_db)]
        ratios = [db for db in map(_shown, given) if db is not None]
        # From zero, so that a fall looks as large as it is; layers with equal values keep their place.
        axes.set_ylim(1.08 * min([0.0, *ratios]), 1.08 * max([1.0, *ratios]))
        axes.set_xlim(0.5, len(found.layers) + 0.5)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("layer, in order of execution")
        axes.set_ylabel("SQNR in dB")
        _legend(axes)

    return draw(f"SQNR by layer of {place}", figures.plain(found.sentence), 300, paint)


def _shown(ratio: float | None) -> float | None:
    """Where it is drawn: the figure of noise without signal, behind a NaN, would leave no room for others."""
    return None if ratio is None else max(ratio, _LOWEST_DB)


def _line(
    axes: Axes, found: Layers, label: str, ratio: Callable[[Layer], float | None], color: str, style: str
) -> None:
    """The layers that have a ratio: equal values have none."""
    points = [
        (depth, db) for depth, layer in enumerate(found.layers, 1) if (db := _shown(ratio(layer))) is not None
    ]
    if points:
        depths, ratios = zip(*points, strict=True)
        axes.plot(depths, ratios, color=color, linestyle=style, marker="o", markersize=5, label=label)


def _guilty(axes: Axes, found: Layers) -> None:
    """A cross on the figure that gives it away: its own error, or that of the run."""
    for verdict in WRONG:
        points = [
            (depth, ratio)
            for depth, layer in enumerate(found.layers, 1)
            if layer.verdict == verdict
            and (ratio := _shown(layer.alone_db if verdict == "kernel bug" else layer.as_run_db)) is not None
        ]
        if points:
            depths, ratios = zip(*points, strict=True)
            axes.plot(
                depths, ratios, color=BAD, marker="X", markersize=12, linestyle="none", label=str(verdict)
            )


def waterfall(report: Report) -> Plot | None:
    """What SQNR is left after each step, and what the step took; None without steps."""
    steps = tables.distinct_steps(report)
    ratios = [step.sqnr_db for step, _ in steps if step.sqnr_db is not None]
    if not ratios:
        return None
    most = max(1.0, *ratios)

    def paint(axes: Axes) -> None:
        for row, (step, whose) in enumerate(steps):
            _bar(axes, row, step, whose[0].waterfall, most)
            axes.text(0, row - 0.14, _short(_step_label(report, step, whose), 46), va="bottom", color=INK)
        # Beside the longest bar there is to be room for its figures.
        axes.set_xlim(0, 1.75 * most)
        axes.set_ylim(len(steps) - 0.5, -0.6)
        axes.axis("off")

    description = "; ".join(
        f"{_step_label(report, step, whose)}: {figures.decibels(step.sqnr_db)}, {step.changed:,} changed"
        for step, whose in steps
    )
    return draw("SQNR left after each step", description, _ROW * len(steps) + 8, paint)


def _step_label(report: Report, step: Step, whose: list[ArtifactReport]) -> str:
    """The step, and whose it is."""
    if len(whose) > 1:
        return figures.plain(step.name)
    return f"{tables.place_of(report, whose[0])} in {figures.plain(step.name)}"


def _bar(axes: Axes, row: int, step: Step, way: Sequence[Step], most: float) -> None:
    """The bar of what is left, and in a lighter shade what this step took."""
    depth = way.index(step)
    left = most if step.sqnr_db is None else max(step.sqnr_db, 0.0)
    before = (way[depth - 1].sqnr_db if depth else None) or left
    if before > left:
        axes.barh(row + 0.12, before - left, height=0.34, left=left, color=GRID)
    axes.barh(row + 0.12, left, height=0.34, color=SERIES[0])
    text = f"{figures.decibels(step.sqnr_db)}, {step.changed:,} changed"
    axes.text(max(left, before) + 0.03 * most, row + 0.12, text, va="center", color=INK)
