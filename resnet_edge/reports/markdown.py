"""A verification as GitHub-flavoured Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from resnet_edge.reports import sentences, tables
from resnet_edge.reports.figures import counted, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnet_edge.reports import grid
    from resnet_edge.verification.report import Check, Report

LIMIT = 65_536
"""Characters of a comment on GitHub."""

_ROWS = 40
"""Of a table or list; the JSON report has all."""

_ROOM = 200
"""Characters kept for the sentence about what was left out."""


def render(report: Report) -> str:
    """The report; what would not fit into a comment is left out from its end, and it says so."""
    text = ""
    sections = list(_sections(report))
    for number, section in enumerate(sections):
        if len(text) + len(section) > LIMIT - _ROOM:
            left = counted(len(sections) - number, "section")
            return f"{text}_Left out for length: {left}. The JSON report has everything._\n"
        text += f"{section}\n\n"
    return text.rstrip() + "\n"


def _sections(report: Report) -> Iterator[str]:
    """In the order of what matters; each is whole by itself."""
    yield f"## {sentences.ANSWERS[report.verdict]}: {escape(report.subject)}"
    yield f"{escape(sentences.tally(report))}: {escape(sentences.subject(report))}."
    open_checks = tables.open_checks(report)
    if open_checks:
        yield _limited([_check(report, check) for check in open_checks])
    yield from _table("Artifacts", tables.summary(report))
    yield from _folded("Errors in detail", "", tables.parities(report))
    yield from _table("Where the error arises", tables.waterfall(report))
    for artifact in report.artifacts:
        if artifact.layers:
            sentence = escape(plain(artifact.layers.sentence))
            title = f"Worst layers of {tables.place_of(report, artifact)}"
            yield from _folded(title, sentence, tables.layers(artifact.layers))
    for artifact in report.artifacts:
        if artifact.accuracy and artifact.accuracy.changes:
            found = f"{sentences.paired(artifact.accuracy)} {sentences.worst_class(artifact.accuracy)}"
            title = f"Changed predictions of {tables.place_of(report, artifact)}"
            yield from _folded(title, escape(found), tables.changes(artifact.accuracy))
    yield from _folded("Latency", "", tables.latencies(report))
    yield from _folded("Machines", "", tables.machines(report))
    notes = [escape(note) for note in sentences.notes(report)]
    pairs = [f"{name}: {escape(text)}" for name, text in sentences.provenance(report)]
    yield _limited([f"- {line}" for line in (*notes, *pairs)])


def escape(text: object) -> str:
    """Text as itself: no HTML, no Markdown, no cells, no mentions, no links to what it happens to name."""
    line = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(plain(text), quote=False))
    # A comment parts what GitHub would link: @somebody, #1, www. and https://
    return re.sub(r"(?<=@)(?=\w)|(?<=#)(?=\d)|(?<=:)(?=//)|(?<=www)(?=\.)", "<!-- -->", line)


def _check(report: Report, check: Check) -> str:
    where = escape(tables.place(report, check.artifact, check.runner))
    return f"- **{check.verdict}** {escape(check.name)}, {where}: {escape(check.sentence)}"


def _limited(lines: list[str]) -> str:
    """The first lines, and how many more there are."""
    more = [f"- and {len(lines) - _ROWS:,} more"] if len(lines) > _ROWS else []
    return "\n".join([*lines[:_ROWS], *more])


def _table(title: str, source: grid.Table) -> Iterator[str]:
    """A titled table; nothing where it has no rows."""
    if source.rows:
        yield f"### {escape(title)}\n\n{_rows(source)}"


def _folded(title: str, sentence: str, source: grid.Table) -> Iterator[str]:
    """A table that is opened with a click; nothing where it has no rows."""
    if source.rows:
        # Between these tags there is no Markdown.
        heading = f"<details><summary>{html.escape(plain(title))}</summary>"
        parts = [heading, sentence, _rows(source), "</details>"]
        yield "\n\n".join(part for part in parts if part)


def _rows(source: grid.Table) -> str:
    titles = [escape(column.title) for column in source.columns]
    rules = ["---:" if column.figures else ":---" for column in source.columns]
    rows = [[_cell(cell) for cell in row] for row in source.rows[:_ROWS]]
    text = "\n".join(f"| {' | '.join(row)} |" for row in (titles, rules, *rows))
    left = len(source.rows) - _ROWS
    return f"{text}\n\nand {left:,} more" if left > 0 else text


def _cell(cell: grid.Cell) -> str:
    text = f"**{escape(cell.text)}**" if cell.verdict else escape(cell.text)
    return f"{text}<br>{escape(cell.detail)}" if cell.detail else text
