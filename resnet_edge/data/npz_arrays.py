"""Arrays inside a ``.npz`` file, row by row: only the rows asked for are in memory, and none is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from resnet_edge.errors import DataRejectedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class NpzArray:
    """One array of the file, not yet read.

    Attributes:
        path: The file.
        name: The array's name.
        shape: Its shape.
        dtype: Its element type.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def find(cls, path: Path, name: str) -> NpzArray | None:
        """The array of that name; None where the file has none.

        Raises:
            DataRejectedError: The file is no ``.npz``, or the array cannot be read row by row.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                if f"{name}.npy" not in archive.namelist():
                    return None
                with archive.open(f"{name}.npy") as file:
                    shape, fortran_order, dtype = _header(file)
        except _DAMAGE as error:
            raise _damaged(path, str(error)) from error
        if dtype.hasobject or fortran_order:
            raise DataRejectedError(
                f"the array {name!r} cannot be read row by row",
                where=str(path),
                found="Python objects" if dtype.hasobject else "an array in column order",
                allowed="numbers in C order",
                next_step=f"save numpy.ascontiguousarray({name}) with a numeric element type",
            )
        return cls(path=path, name=name, shape=shape, dtype=dtype)

    def rows(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """The elements ``start`` to ``stop`` along the first dimension, one by one.

        Raises:
            DataRejectedError: The file is damaged.
        """
        shape = self.shape[1:]
        size = math.prod(shape) * self.dtype.itemsize
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as file:
                _header(file)
                file.seek(start * size, 1)
                for row in range(start, stop):
                    content = file.read(size)
                    if len(content) < size:
                        raise _damaged(self.path, f"{self.name} ends in row {row} of {self.shape[0]}")
                    yield np.frombuffer(content, self.dtype).reshape(shape)
        except _DAMAGE as error:
            raise _damaged(self.path, str(error)) from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in column order, and element type.

    Raises:
        ValueError: The member is no array of a known version, or a dimension is negative.
    """
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an array of version {version}")
    shape, fortran_order, dtype = _HEADERS[version](file)
    if any(extent < 0 for extent in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran_order, dtype


def _damaged(path: Path, found: str) -> DataRejectedError:
    return DataRejectedError(
        "the file cannot be read as .npz",
        where=str(path),
        found=found,
        allowed="what numpy.savez or numpy.savez_compressed writes",
        next_step="make the file again",
    )
