"""What is said where there is no room for temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from resnet_edge.errors import ConversionFailedError
from resnet_edge.temporary import temporary_file, temporary_folder

FULL = Path("/dev/full")
"""Refuses every byte as a full disk does."""


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("temporary", [temporary_file, temporary_folder])
def test_a_full_disk_is_named_with_its_folder(temporary, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConversionFailedError) as caught, temporary():
        FULL.write_bytes(b"x")
    assert caught.value.where == str(tmp_path)
    assert caught.value.found == "No space left on device"
    assert "TMPDIR" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_no_place_at_all_is_told(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    # Stands for disks so full, or so read-only, that not a byte can be written anywhere.
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    with pytest.raises(ConversionFailedError, match="No usable temporary directory"), temporary_folder():
        pass


def test_other_troubles_are_not_taken_for_a_full_disk():
    with pytest.raises(FileNotFoundError), temporary_folder() as folder:
        (folder / "absent").read_bytes()
    assert not folder.exists()
