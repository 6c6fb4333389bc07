"""Make the shipped images: ``python -m training.datasets``.

Writes ``calibration.npz``, ``test.npz`` and one image as a PNG into ``calibration_data/fashion_mnist``, byte
for byte the same each time (given the same zlib), and brings ``SHA256SUMS`` up to date.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from training.source import Images, read_test, read_training

if TYPE_CHECKING:
    from numpy.typing import NDArray

DESTINATION = Path(__file__).resolve().parents[1] / "calibration_data" / "fashion_mnist"
CLASSES = 10
CALIBRATION_IMAGES = 1_000
SEED = 0

_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first time that a ZIP archive can express; a real one would make every run's file another."""


def select_calibration(labels: NDArray[np.int64], count: int = CALIBRATION_IMAGES) -> NDArray[np.int64]:
    """Indices of ``count`` images, drawn class-balanced, in an order whose every prefix is balanced too.

    Round r holds one image of each class, in a random order of the classes, so that any first N images hold
    each class N / 10 times, give or take one. ``RandomState`` because NumPy keeps its stream unchanged
    for good, which it does not promise for ``Generator``.
    """
    random = np.random.RandomState(SEED)
    by_class = [random.permutation(np.flatnonzero(labels == index)) for index in range(CLASSES)]
    rounds = [
        [by_class[index][number] for index in random.permutation(CLASSES)]
        for number in range(count // CLASSES)
    ]
    return np.array(rounds, np.int64).reshape(-1)


def write_npz(path: Path, data: Images) -> None:
    """Write ``images`` and ``labels`` as ``numpy.savez_compressed`` would, but without the time of day."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in (("images", data.images), ("labels", data.labels)):
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EARLIEST)
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def write_digests(folder: Path) -> None:
    """List the SHA-256 of every data file in ``folder``, in the format that ``sha256sum --check`` reads."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".npz", ".safetensors"})
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


def make(destination: Path = DESTINATION) -> None:
    """Write both sets and the digests into ``destination``."""
    destination.mkdir(parents=True, exist_ok=True)
    training = read_training()
    chosen = select_calibration(training.labels)
    calibration = Images(images=training.images[chosen], labels=training.labels[chosen])
    write_npz(destination / "calibration.npz", calibration)
    # An image as users have them, for the device's scripts: the first of the test set.
    Image.fromarray(read_test().images[0, ..., 0]).save(destination / "ankle_boot.png", optimize=True)
    write_npz(destination / "test.npz", read_test())
    write_digests(destination)


if __name__ == "__main__":
    make()
