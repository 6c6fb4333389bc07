"""Reports as files: the suffix chooses, and a full disk leaves nothing half written."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import pytest

from resnet_edge.errors import ConversionFailedError, UsageError
from resnet_edge.reports.writing import check_report_path, write_report
from tests.reports.sample import hostile, sample

BEGINNINGS = {".html": "<!doctype html>", ".md": "## ", ".json": "{", ".xml": "<?xml"}


@pytest.mark.parametrize(("suffix", "beginning"), BEGINNINGS.items())
@pytest.mark.parametrize("report", [sample(), hostile()], ids=["sample", "hostile"])
def test_the_suffix_chooses(tmp_path, report, suffix, beginning):
    path = tmp_path / f"report{suffix.upper()}"
    write_report(report, path)
    assert path.read_text(encoding="utf-8").startswith(beginning)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_equal_reports_give_equal_bytes(tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_report(sample(), first)
    write_report(sample(), second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.html.gz", ".json"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path, name):
    with pytest.raises(UsageError) as caught:
        check_report_path(tmp_path / name)
    assert caught.value.allowed == ".html, .md, .json, .xml"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "file").touch()
    for name, found in {
        "absent/r.md": "its folder does not exist",
        "file/r.md": "its folder does not exist",
        "folder.md": "a folder of this name",
    }.items():
        with pytest.raises(UsageError) as caught:
            check_report_path(tmp_path / name)
        assert caught.value.found == found


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UsageError) as caught:
        check_report_path(tmp_path / "r.md")
    assert caught.value.found == "no permission to write there"


@pytest.mark.parametrize("where", ["write_text", "replace"])
def test_a_refusing_file_system_leaves_the_older_report(tmp_path, monkeypatch, where):
    path = tmp_path / "report.json"
    path.write_text("older")

    def refuse(self, *arguments, **options):
        if where == "write_text":
            self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, where, refuse)
    with pytest.raises(ConversionFailedError) as caught:
        write_report(sample(), path)
    assert caught.value.exit_code == 5
    assert caught.value.found == "No space left on device"
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_the_kernel_cuts_short(tmp_path):
    """A real refusal in the middle of the file; a limit of the process is one that needs no root."""
    path = tmp_path / "report.json"
    path.write_text("older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(ConversionFailedError):
            write_report(sample(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
