"""A part of a file as a file: what an archive stores plainly need not be unpacked to be read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True, kw_only=True)
class Region:
    """Some bytes of an open file of the operating system.

    Attributes:
        file: The file, for as long as the region is used.
        start: Offset of the first byte.
        size: Number of bytes.
    """

    file: BinaryIO
    start: int
    size: int

    def stream(self) -> BinaryIO:
        """The region as a file to read and seek in."""
        return io.BufferedReader(_Window(self))


class _Window(io.RawIOBase):
    def __init__(self, region: Region) -> None:
        super().__init__()
        self._region = region
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._region.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        region = self._region
        region.file.seek(region.start + self._position)
        wanted = max(0, min(len(buffer), region.size - self._position))
        data = region.file.read(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
