"""Reports as files: complete or not there at all."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
from typing import TYPE_CHECKING

from resnet_edge.errors import ConversionFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resnet_edge.verification.report import Report

_RENDERERS: Mapping[str, str] = {
    ".html": "resnet_edge.reports.html",
    ".md": "resnet_edge.reports.markdown",
    ".json": "resnet_edge.reports.json_report",
    ".xml": "resnet_edge.reports.junit",
}
"""Modules with a ``render(report) -> str``, imported on use: some need templates and plots."""


def check_report_path(path: Path) -> None:
    """Refuse a place where a report cannot go, before any work is done.

    Raises:
        UsageError: The suffix is none of the formats', it is a folder, or its folder is absent or cannot be
            written.
    """
    if path.suffix.lower() not in _RENDERERS:
        raise UsageError(
            "the report's format is not known",
            where=str(path),
            found=path.suffix or "no suffix",
            allowed=", ".join(_RENDERERS),
            next_step="give --report a name with one of these endings",
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        found = "its folder does not exist"
    elif path.is_dir():
        found = "a folder of this name"
    elif not os.access(folder, os.W_OK | os.X_OK):
        found = "no permission to write there"
    else:
        return
    raise UsageError(
        "the report cannot be written", where=str(path), found=found, next_step="choose another --report"
    )


def write_report(report: Report, path: Path) -> None:
    """Write the report in the format that the suffix names: HTML, Markdown, JSON or JUnit XML.

    It is written beside its place and renamed, so that a full disk leaves an older report as it was.

    Raises:
        UsageError: See :func:`check_report_path`.
        ConversionFailedError: The file system refuses (full, read-only, quota).
    """
    check_report_path(path)
    text: str = importlib.import_module(_RENDERERS[path.suffix.lower()]).render(report)
    # Hidden, and short: a long name with more behind it may be longer than the file system takes.
    partial = path.absolute().parent / f".report.partial-{secrets.token_hex(4)}"
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise ConversionFailedError(
            "cannot write the report",
            where=str(path),
            found=error.strerror or str(error),
            next_step="free some space or choose another --report; nothing was left behind",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or the file system refuses this too
            partial.unlink()
