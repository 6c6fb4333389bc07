"""The check of HDF5's global heaps, where texts of variable length are kept.

HDF5 1.14 walks a heap from object to object by the sizes in the file; a free object of size 0 keeps it
walking for ever, in C and deaf to Ctrl-C. One damaged byte is enough. So the walk is done here first, by the
layout in the HDF5 file format specification, section III.E ("Disk Format: Level 1E - Global Heap").
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

from resnet_edge.errors import UnsafeFileError

if TYPE_CHECKING:
    from resnet_edge.models.safety.region import Region

_SIGNATURE = b"GCOL\x01"
_COLLECTION = struct.Struct("<8xQ")
"""Signature, version and padding; size of the collection, header included."""

_OBJECT = struct.Struct("<H6xQ")
"""Index (0: free space), references and padding; size, for free space with this header, else without."""


def check_global_heaps(region: Region, where: str) -> None:
    """Walk every global heap in an HDF5 file with lengths of 8 bytes.

    Raises:
        UnsafeFileError: A heap on which HDF5 would not come to an end.
    """
    end = region.start + region.size
    with mmap.mmap(region.file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        left = region.size
        start = data.find(_SIGNATURE, region.start, end)
        while start >= 0:
            length = _COLLECTION.unpack_from(data, start)[0] if start + _COLLECTION.size <= end else 0
            left -= length  # heaps do not overlap: this keeps the walks together linear in the file
            fits = length >= _COLLECTION.size and left >= 0 and start + length <= end
            if not (fits and _walk(data, start, start + length)):
                raise UnsafeFileError(
                    "the HDF5 file has a damaged heap of texts",
                    where=f"{where}, byte {start - region.start:,}",
                    allowed="objects that fill the heap exactly",
                    next_step="get the file again from its source, or save the model again",
                )
            start = data.find(_SIGNATURE, start + 1, end)


def _walk(data: mmap.mmap, start: int, end: int) -> bool:
    """Whether the objects of a heap lead from its start to its end."""
    at = start + _COLLECTION.size
    while end - at >= _OBJECT.size:
        index, length = _OBJECT.unpack_from(data, at)
        if index == 0 and length < _OBJECT.size:
            return False
        at += length if index == 0 else _OBJECT.size + -(-length // 8) * 8
    return at <= end
