"""A verification in the terminal: the whole text, and nothing that a name can do to it."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from resnet_edge.reports.verification_terminal import show_report
from tests.reports.sample import HOSTILE, hostile, sample

GOLDEN = Path(__file__).with_name("golden")


def shown(report, width, *, color=False):
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        _environ={},
    )
    show_report(report, console)
    return stream.getvalue()


def test_the_whole_text():
    text = shown(sample(), 120)
    golden = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    assert golden == (GOLDEN / "terminal.txt").read_text()


def test_no_figure_is_lost_in_a_narrow_terminal():
    wide, narrow = shown(sample(), 200), shown(sample(), 80)
    assert max(map(len, narrow.splitlines())) <= 80
    # Words of the tables; sentences and titles may break anywhere.
    figures = {word for word in wide.split() if word[0] in "0123456789+<>-" and word[-1] not in "-;.,:"}
    assert figures <= set(narrow.split())
    assert len(figures) > 60


def test_names_are_not_read_as_markup_and_cannot_steer_the_terminal():
    text = shown(hostile(), 200)
    assert HOSTILE in text
    assert "[bold]shirt[/]" in text
    assert "\\x1b[31m" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_verdict_comes_first_and_in_its_colour():
    assert shown(sample(), 120, color=True).startswith(
        "\x1b[1;31mMust not ship\x1b[0m: 3 of 14 checks failed"
    )
