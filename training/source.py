"""Fashion-MNIST as Debian ships it (package ``dataset-fashion-mnist``, MIT licence, Zalando SE)."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = Path("/usr/share/datasets/fashion-mnist")

DIGESTS = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
"""SHA-256 of the four files of version 0.0~git20200523: other bytes would make another model."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images with their class indices.

    Attributes:
        images: uint8 (N, 28, 28, 1), 0 is the background.
        labels: int64 (N,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_training(folder: Path = SOURCE) -> Images:
    """The 60,000 training images, in the source's order."""
    return _read(folder, "train")


def read_test(folder: Path = SOURCE) -> Images:
    """The 10,000 test images, in the source's order."""
    return _read(folder, "t10k")


def _read(folder: Path, part: str) -> Images:
    pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return Images(images=pixels[..., None], labels=labels.astype(np.int64))


def _idx(path: Path) -> NDArray[np.uint8]:
    """The array in one IDX file of bytes: magic 0x000008RR (RR dimensions), big-endian sizes, then the data.

    Raises:
        SystemExit: The file is missing, or is not the one that the shipped files were made from.
    """
    if not path.exists():
        raise SystemExit(f"{path} is missing: apt-get install dataset-fashion-mnist")
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != DIGESTS[path.name]:
        raise SystemExit(f"{path} is not the file of dataset-fashion-mnist 0.0~git20200523")
    content = gzip.decompress(packed)
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
