"""Temporary folders and files that say so when there is no room for them."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from resnet_edge.errors import ConversionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone after the block, which writes nowhere else.

    Raises:
        ConversionFailedError: Its disk is full, or there is no place for it at all.
    """
    with naming_a_full_disk(), tempfile.TemporaryDirectory(prefix="resnet-edge-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """A file without a name that is gone after the block; raises what :func:`temporary_folder` raises."""
    with naming_a_full_disk(), tempfile.TemporaryFile() as file:
        yield file


@contextlib.contextmanager
def naming_a_full_disk() -> Iterator[None]:
    """Let a full disk be no fault of what was to go into a temporary folder.

    Raises:
        ConversionFailedError: The disk of temporary files is full, or there is no place for them at all.
    """
    try:
        yield
    except OSError as error:
        # Without a folder that can be written to, tempfile knows none.
        if error.errno not in _FULL and tempfile.tempdir is not None:
            raise
        raise ConversionFailedError(
            "there is no room for temporary files",
            where=tempfile.tempdir or "TMPDIR",
            found=error.strerror or str(error),
            next_step="free some space, or let TMPDIR name a folder with more",
        ) from error
