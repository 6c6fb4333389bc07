"""Images that a bundle keeps, so that it can be verified where its calibration images are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.data.npz_arrays import NpzArray

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.data.datasets import Dataset

CALIBRATED = "calibrated"
"""The array with the hashes of the images that calibration saw."""


def save_held_back(dataset: Dataset, path: Path, *, calibrated: int, most: int) -> int:
    """Keep images that calibration did not see, and hashes of those that it did.

    Args:
        dataset: Calibration saw its first ``calibrated`` images.
        path: The ``.npz`` file; :func:`~resnet_edge.data.datasets.open_dataset` opens it.
        calibrated: How many were seen.
        most: How many of those behind are kept at most.

    Returns:
        How many were kept.

    Raises:
        OSError: The file cannot be written.
    """
    behind = np.arange(calibrated, min(len(dataset), calibrated + most))
    return save_kept(dataset.pick(behind), path, seen=dataset.image_hashes(0, calibrated))


def save_kept(dataset: Dataset, path: Path, *, seen: Sequence[str]) -> int:
    """Keep images, and hashes of others that scales or weights were chosen on.

    Args:
        dataset: The images.
        path: The ``.npz`` file.
        seen: The hashes.

    Returns:
        How many images there are.

    Raises:
        OSError: The file cannot be written.
    """
    arrays: dict[str, NDArray[np.generic]] = {CALIBRATED: np.array(seen, np.str_)}
    kept = list(dataset.fitted())
    if kept:
        arrays["images"] = np.stack(kept)
    if kept and dataset.labels is not None:
        arrays["labels"] = dataset.labels
    np.savez(path, allow_pickle=False, **arrays)
    return len(kept)


def calibrated_hashes(path: Path) -> frozenset[str]:
    """Hashes (:meth:`~resnet_edge.data.datasets.Dataset.image_hashes`) of the images calibrated on.

    Raises:
        DataRejectedError: The file is damaged.
    """
    array = NpzArray.find(path, CALIBRATED)
    return frozenset() if array is None else frozenset(str(row) for row in array.rows(0, array.shape[0]))
