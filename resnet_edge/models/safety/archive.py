"""The check of a ``.keras`` archive: a ZIP file with exactly what Keras writes into it.

Keras extracts archives with further entries into a folder; so does not this. Entries are read through
:mod:`zipfile`, which never returns more than the directory declares, so the declared sizes are what to bound.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from resnet_edge.errors import ModelRejectedError, UnsafeFileError
from resnet_edge.models.safety.region import Region
from resnet_edge.temporary import temporary_file

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = b"PK\x03\x04"
"""The first bytes of a ZIP file."""

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

_LARGEST_JSON = 32 << 20
"""ResNet-152's configuration is 0.6 MB."""

_LARGEST_RATIO = 100
"""Declared size over stored size. Keras stores without compression; recompressed weights shrink a little."""

_UNSUSPICIOUS_BYTES = 1 << 20
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of an entry's own header: lengths of its name and extra field, which its data follow."""


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose directory is sound.

    Raises:
        UnsafeFileError: An entry that Keras does not write, a path, a link, or a size out of proportion.
        ModelRejectedError: The archive is damaged or incomplete.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive, path)
            yield archive
    # What zipfile raises for damaged archives, by trial and by its source.
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        raise ModelRejectedError(
            "the archive cannot be read",
            where=str(path),
            found=str(error),
            next_step="if it is truncated or damaged, get it again from its source or save the model again",
        ) from error


def _check_directory(archive: zipfile.ZipFile, path: Path) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    unexpected = [name for name in names if name not in (CONFIG, METADATA, WEIGHTS)]
    if unexpected:
        raise _unsafe("an entry that Keras does not write", path, ", ".join(map(repr, unexpected[:5])))
    if len(set(names)) != len(names):
        raise _unsafe("two entries of one name", path, ", ".join(names))
    for entry in entries:
        _check_entry(entry, path)
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            raise ModelRejectedError(
                f"the archive has no {name}",
                where=str(path),
                found=", ".join(names) or "nothing",
                next_step="save the whole model: model.save('NAME.keras')",
            )


def _check_entry(entry: zipfile.ZipInfo, path: Path) -> None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise _unsafe("a symbolic link", path, entry.filename)
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _unsafe("an entry that is encrypted or compressed in an unusual way", path, entry.filename)
    most = max(_UNSUSPICIOUS_BYTES, _LARGEST_RATIO * min(entry.compress_size, path.stat().st_size))
    if entry.filename != WEIGHTS:
        most = min(most, _LARGEST_JSON)
    if entry.file_size > most:
        raise _unsafe(
            "an entry of a size out of proportion",
            path,
            f"{entry.filename}: {entry.file_size:,} bytes, stored as {entry.compress_size:,}",
        )


def _unsafe(what: str, path: Path, found: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"the archive has {what}",
        where=str(path),
        found=found,
        allowed=f"{CONFIG}, {METADATA}, {WEIGHTS}, in proportion to the file",
        next_step="do not use this file, or save the model again with model.save('NAME.keras')",
    )


@contextlib.contextmanager
def weights_region(archive: zipfile.ZipFile) -> Iterator[Region]:
    """The weights as a file to seek in, without a copy where the archive stores them plainly, as Keras does.

    (zipfile's own stream reads everything again to step back by a byte.)
    """
    entry = archive.getinfo(WEIGHTS)
    with archive.open(entry) as unpacked, contextlib.ExitStack() as stack:
        if entry.compress_type == zipfile.ZIP_STORED and archive.filename is not None:
            file: BinaryIO = stack.enter_context(Path(archive.filename).open("rb"))
            file.seek(entry.header_offset)
            name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        else:
            file, start = stack.enter_context(temporary_file()), 0
            shutil.copyfileobj(unpacked, file)
            file.flush()
        yield Region(file=file, start=start, size=entry.file_size)
