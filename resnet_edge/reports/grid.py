"""Rows and columns of text, in no form of report yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_edge.reports import figures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resnet_edge.verification.report import Verdict


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure with what belongs to it.

    Attributes:
        text: The figure or name.
        detail: Its interval, its n: shown smaller.
        verdict: Gives the cell its colour.
    """

    text: str = figures.NONE
    detail: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its heading, and whether it is read from the right end as figures are."""

    title: str
    figures: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of as many cells as there are columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(columns: Iterable[str], rows: Iterable[Iterable[Cell]]) -> Table:
    """A table without the columns that have nothing to show; a title that ends in ``<`` is of names."""
    made = [Column(title=title.rstrip("<"), figures=not title.endswith("<")) for title in columns]
    cells = [tuple(row) for row in rows]
    used = [index for index in range(len(made)) if any(row[index] != Cell() for row in cells)]
    return Table(
        columns=tuple(made[index] for index in used),
        rows=tuple(tuple(row[index] for index in used) for row in cells),
    )


def name(text: object) -> Cell:
    """A cell with a name from a user's file."""
    return Cell(text=figures.plain(text))
