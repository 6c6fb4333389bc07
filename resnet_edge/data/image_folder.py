"""Image files in a folder, or in one sub-folder a class."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import DataRejectedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Files with other names are not looked at."""

UNREADABLE_SHARE = 0.01
"""Of the files, so many may be no images; three may be in any case."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CALLED = {"L": "grey", "RGB": "RGB", "RGBA": "RGBA", "P": "palette", "LA": "grey with alpha", "1": "bilevel"}
_LOOKAHEAD = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFolder:
    """The images of a folder by position: the classes take turns, so that a prefix holds all of them.

    Attributes:
        paths: The files.
        labels: Class index of each; None where the folder has no sub-folders.
        channels: 1, 3 or 4, to which every image is converted.
        notes: What a user should know: files left out, images converted.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64] | None
    channels: int
    notes: tuple[str, ...]

    @classmethod
    def scan(cls, folder: Path, channels: int, class_names: Sequence[str] | None) -> ImageFolder:
        """Look at every file's header.

        Args:
            folder: With image files, or with one sub-folder a class.
            channels: Of the images wanted.
            class_names: In the order of their indices; None: the sub-folders' sorted names are that.

        Raises:
            DataRejectedError: There are no images, too many are unreadable, or a sub-folder is no class.
        """
        classes = _classes(folder, class_names)
        listed = list(_alternating([(path, index) for path in _images(place)] for place, index in classes))
        modes = {path: _mode(path) for path, _ in listed}
        unreadable = {path: reason for path, (mode, reason) in modes.items() if not mode}
        kept = [(path, index) for path, index in listed if path not in unreadable]
        _check_readable(folder, len(listed), unreadable)
        indices = np.array([index for _, index in kept], np.int64)
        converted = Counter(modes[path][0] for path, _ in kept if modes[path][0] != _MODES[channels])
        return cls(
            paths=tuple(path for path, _ in kept),
            labels=None if min(indices) < 0 else indices,
            channels=channels,
            notes=(
                *(f"{path} is left out: {reason}" for path, reason in unreadable.items()),
                *(
                    f"{count} {_CALLED.get(mode, mode)} images converted to {_CALLED[_MODES[channels]]}"
                    for mode, count in sorted(converted.items())
                ),
            ),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
        """The images ``start`` to ``stop``, uint8 (height, width, channels), upright, each of its own size.

        Raises:
            DataRejectedError: A file breaks off.
        """
        with ThreadPoolExecutor() as pool:
            for first in range(start, stop, _LOOKAHEAD):
                yield from pool.map(self._decode, self.paths[first : min(first + _LOOKAHEAD, stop)])

    def contents(self, start: int, stop: int) -> Iterator[bytes]:
        """The files themselves.

        Raises:
            DataRejectedError: A file cannot be read.
        """
        for path in self.paths[start:stop]:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise DataRejectedError(
                    "an image cannot be read", where=str(path), found=error.strerror or str(error)
                ) from error
            yield content

    def pick(self, positions: NDArray[np.int64]) -> ImageFolder:
        """The images at the given positions."""
        labels = None if self.labels is None else self.labels[positions]
        return replace(self, paths=tuple(self.paths[position] for position in positions), labels=labels)

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert(_MODES[self.channels])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataRejectedError(
                "an image is damaged",
                where=str(path),
                found=str(error),
                next_step="remove or replace the file",
            ) from error
        return np.asarray(upright).reshape(upright.height, upright.width, self.channels)


def _classes(folder: Path, class_names: Sequence[str] | None) -> list[tuple[Path, int]]:
    """The folders to look into, each with its class index; -1 for images without a class.

    Raises:
        DataRejectedError: A sub-folder is none of ``class_names``.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    if not folders:
        return [(folder, -1)]
    indices: Mapping[str, int] = {
        name: index for index, name in enumerate(class_names or [path.name for path in folders])
    }
    strangers = [path.name for path in folders if path.name not in indices]
    if strangers:
        raise DataRejectedError(
            "a sub-folder is not named like a class",
            where=str(folder),
            found=", ".join(strangers[:5]),
            allowed=", ".join(list(indices)[:20]),
            next_step="rename the sub-folders, or give their names as labels",
        )
    return [(path, indices[path.name]) for path in folders]


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _alternating(groups: Iterator[list[tuple[Path, int]]]) -> Iterator[tuple[Path, int]]:
    """One of each group, then the next of each."""
    return (item for item in chain.from_iterable(zip_longest(*groups)) if item is not None)


def _mode(path: Path) -> tuple[str, str]:
    """An image's mode in Pillow's terms; empty, with the reason, where the file cannot be used."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return "", str(error)
    return ("", "more than 8 bits a channel") if mode[0] in "IF" else (mode, "")


def _check_readable(folder: Path, files: int, unreadable: Mapping[Path, str]) -> None:
    if files == 0:
        raise DataRejectedError(
            "there are no images in the folder",
            where=str(folder),
            allowed=f"one sub-folder a class with image files ({', '.join(sorted(SUFFIXES))})",
            next_step="check the path",
        )
    if len(unreadable) == files or len(unreadable) > max(3, files * UNREADABLE_SHARE):
        raise DataRejectedError(
            "too many files are no usable images",
            where="; ".join(f"{path}: {reason}" for path, reason in list(unreadable.items())[:5]),
            found=f"{len(unreadable)} of {files}",
            allowed=f"3, or {UNREADABLE_SHARE:.0%} of the files",
            next_step="remove or repair them",
        )
