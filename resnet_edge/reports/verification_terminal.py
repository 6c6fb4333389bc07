"""A verification in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resnet_edge.reports import sentences, tables
from resnet_edge.reports.figures import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from resnet_edge.reports import grid
    from resnet_edge.verification.report import Report, Verdict

_STYLES: Mapping[Verdict, str] = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "yellow",
    "skipped": "dim",
    "missing": "bold red",
    "unreachable": "bold red",
}

_WIDEST = 40
"""Characters of a column; longer names go over several lines."""


def show_report(report: Report, console: Console | None = None) -> None:
    """The verdict, the artifacts side by side, where the error arises, and what did not pass.

    Nothing is read as Rich's markup: every text is a ``Text``, because names come from users' files.
    """
    console = console or Console()
    answer = (sentences.ANSWERS[report.verdict], _STYLES[report.verdict])
    console.print(Text.assemble(answer, f": {sentences.tally(report)}"))
    console.print(Text(sentences.subject(report)))
    _show(console, tables.summary(report))
    waterfall = tables.waterfall(report)
    if waterfall.rows:
        _title(console, "Where the error arises")
        _show(console, waterfall)
    _layers(console, report)
    times = tables.latencies(report)
    if times.rows:
        _title(console, "Latency")
        _show(console, times)
    _checks(console, report)
    for note in sentences.notes(report):
        console.print(Text(f"note: {note}"))


def _title(console: Console, title: str) -> None:
    console.print(Text(title, style="bold"))


def _layers(console: Console, report: Report) -> None:
    """The finding about the layers of each artifact, and its worst ones."""
    for artifact in report.artifacts:
        if artifact.layers:
            _title(console, f"Layers of {tables.place_of(report, artifact)}")
            console.print(Text(plain(artifact.layers.sentence)))
            _show(console, tables.layers(artifact.layers))


def _checks(console: Console, report: Report) -> None:
    """What did not pass, with its sentence."""
    left = tables.open_checks(report)
    if left:
        _title(console, "What did not pass")
    for check in left:
        where = tables.place(report, check.artifact, check.runner)
        found = f" {plain(check.name)}, {where}: {plain(check.sentence)}"
        console.print(Text.assemble((check.verdict, _STYLES[check.verdict]), found))


def _show(console: Console, source: grid.Table) -> None:
    """The table; where the terminal is too narrow, its columns in several tables below each other."""
    widths = [_width(source, index) for index in range(len(source.columns))]
    titles = [column.title for column in source.columns]
    # Without what it is about a row is worth nothing.
    keys = [0, titles.index("runner")] if "runner" in titles[1:] else [0]
    left = [index for index in range(len(widths)) if index not in keys]
    while left:
        count = 1  # even where it does not fit: names alone say nothing
        while count < len(left) and _total(widths, keys + left[: count + 1]) <= console.width:
            count += 1
        console.print(_rich(source, widths, keys + left[:count]))
        left = left[count:]


def _width(source: grid.Table, index: int) -> int:
    """Characters for a column: half a figure is a wrong one, and only titles and long names are folded."""
    texts = [
        *source.columns[index].title.split(),
        *(text for row in source.rows for text in (row[index].text, row[index].detail)),
    ]
    return min(_WIDEST, max(cell_len(text) for text in texts))


def _total(widths: Sequence[int], columns: Iterable[int]) -> int:
    """Of a table with these columns: one space at its ends, three between columns."""
    used = [widths[index] for index in columns]
    return sum(used) + 3 * (len(used) - 1) + 2


def _rich(source: grid.Table, widths: Sequence[int], columns: Iterable[int]) -> Table:
    """A table of these columns."""
    chosen = tuple(columns)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index in chosen:
        column = source.columns[index]
        justify: Literal["left", "right"] = "right" if column.figures else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold", width=widths[index])
    for row in source.rows:
        table.add_row(*(_text(row[index]) for index in chosen))
    return table


def _text(cell: grid.Cell) -> Text:
    """A figure, and below it what belongs to it."""
    figure = (cell.text, _STYLES[cell.verdict] if cell.verdict else "")
    return Text.assemble(figure, (f"\n{cell.detail}", "dim")) if cell.detail else Text.assemble(figure)
