"""Figures and names as text, the same in every form of report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_edge.verification.report import Drop, Proportion, Ratio

NONE = "-"
"""Where there is nothing to show."""

NO_SIGNAL_DB = -300.0
"""Ratios below are not those of numbers, but of outputs that are not finite or have no signal at all."""


def plain(text: object) -> str:
    r"""One line without anything invisible: names come from users' files and may hold escape codes.

    White space of any kind becomes one space; control characters, bidirectional overrides, lone surrogates
    and whatever else does not print become escapes such as ``\x1b``. The result is valid in XML and UTF-8.
    """
    line = " ".join(str(text).split())
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line
    )


def counted(count: int, noun: str) -> str:
    """``1 check``, ``2,000 checks``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def kilobytes(size: int) -> str:
    """A size in kB of 1000 bytes."""
    return f"{size / 1000:,.0f} kB"


def megabytes(size: int) -> str:
    """A size in MB of 1000 kB."""
    return f"{size / 1e6:,.0f} MB"


def gigabytes(size: int) -> str:
    """A size in GB of 1000 MB."""
    return f"{size / 1e9:,.1f} GB"


def percent(share: float) -> str:
    """A share with one decimal that is never rounded to all or nothing."""
    if 0.9995 <= share < 1:
        return ">99.9%"
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}"


def interval(value: Proportion) -> str:
    """``95.9-98.6%``."""
    return f"{100 * value.low:.1f}-{value.high:.1%}"


def points(drop: Drop) -> str:
    """``+1.4 pp``; a loss is positive."""
    return f"{drop.points:+.1f} pp"


def points_interval(drop: Drop) -> str:
    """``-0.2 to 1.0``."""
    return f"{drop.low:.1f} to {drop.high:.1f}"


def decibels(ratio: float | None) -> str:
    """``31.2 dB``; no noise at all is ``equal``, and noise without signal ``no signal``."""
    if ratio is None:
        return "equal"
    return "no signal" if ratio < NO_SIGNAL_DB else f"{ratio:.1f} dB"


def error(value: float) -> str:
    """``3.1e-05``, ``0.212``, ``14.2``."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:,.3g}"


def milliseconds(time: float) -> str:
    """Three digits: ``0.413 ms``, ``1.24 ms``, ``12.4 ms``, ``1,240 ms``."""
    decimals = 3 if time < 1 else 2 if time < 10 else 1 if time < 100 else 0
    return f"{time:,.{decimals}f} ms"


def ratio(value: Ratio) -> str:
    """``2.94x``."""
    return f"{value.value:.2f}x"


def ratio_interval(value: Ratio) -> str:
    """``2.81 to 3.07``."""
    return f"{value.low:.2f} to {value.high:.2f}"


def confidence(level: float) -> str:
    """``95%``, ``99.5%``."""
    return f"{100 * level:g}%"
