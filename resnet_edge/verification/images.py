"""The images that artifacts are verified on: the user's, those held back at calibration, or seeded ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge import bundle as bundles
from resnet_edge.data.datasets import ArrayImages, Dataset, open_dataset
from resnet_edge.data.held_back import calibrated_hashes
from resnet_edge.data.sampling import choose_indices
from resnet_edge.errors import DataRejectedError, ModelRejectedError
from resnet_edge.verification.proof import probe_images
from resnet_edge.verification.report import Data
from resnet_edge.verification.target import BundleTarget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.pipeline import VerifyOptions
    from resnet_edge.verification.target import Target

SEEDS = 8
"""Of pairs of probe images where there is nothing better."""

HASHED = 2048
"""Images that are compared with those calibrated on: enough to find that a whole set was reused."""


@dataclass(frozen=True, kw_only=True)
class VerificationData:
    """Images and what is to be said about them.

    Attributes:
        dataset: The images, under the artifacts' contract.
        labels: Class indices, (N,); None where there are none.
        seeded: Whether they are no images of the user's.
        description: For the report.
    """

    dataset: Dataset
    labels: NDArray[np.int64] | None
    seeded: bool
    description: Data


def open_images(target: Target, options: VerifyOptions) -> VerificationData:
    """Open what ``--data`` names, or the images held back in the bundle, or make seeded ones.

    Raises:
        UsageError: ``--data`` names nothing that could be opened.
        DataRejectedError: The images or labels cannot be used for this model.
    """
    if options.data is not None:
        names = target.labels or None
        dataset = open_dataset(options.data, target.artifact_contract, class_names=names, split="test")
        return _described(dataset, target, options, seeded=False)
    kept = _held_back(target)
    if kept is not None:
        return _described(kept, target, options, seeded=False)
    return _described(_seeded(target), target, options, seeded=True)


def _held_back(target: Target) -> Dataset | None:
    """The images that the bundle keeps.

    Raises:
        ModelRejectedError: Their file is gone or was changed.
    """
    if not isinstance(target, BundleTarget):
        return None
    record = target.manifest.held_back
    if record is None or not record.images:
        return None
    path = target.folder / record.path
    if not path.exists() or bundles.digest(path) != record.sha256:
        raise ModelRejectedError(
            "the images held back in the bundle are not those that were kept",
            where=str(path),
            found="changed" if path.exists() else "gone",
            next_step="quantize again, or give images with --data",
        )
    dataset = open_dataset(str(path), target.artifact_contract)
    return Dataset(
        name=f"images held back from {record.source}",
        images=dataset.images,
        preprocessing=dataset.preprocessing,
        labels=dataset.labels,
    )


def _seeded(target: Target) -> Dataset:
    height, width = target.artifact_contract.input_size
    shape = (height, width, target.artifact_contract.channels)
    pixels = np.concatenate([probe_images(shape, seed=seed) for seed in range(SEEDS)])
    return Dataset(
        name="seeded images",
        images=ArrayImages(array=pixels),
        preprocessing=target.artifact_contract,
        labels=None,
    )


def _described(dataset: Dataset, target: Target, options: VerifyOptions, *, seeded: bool) -> VerificationData:
    available = len(dataset)
    if not available:
        raise DataRejectedError("there are no images", where=dataset.name, next_step="give at least one")
    if dataset.labels is not None:
        dataset.class_indices(target.classes)  # raises: labels of another model
    if options.samples is not None:
        dataset = dataset.pick(choose_indices(available, options.samples, dataset.labels))
    description = Data(
        name=dataset.name,
        images=len(dataset),
        available=available,
        labelled=dataset.labels is not None,
        digest=dataset.digest(),
        notes=(*dataset.notes, *_reused(dataset, target)),
    )
    return VerificationData(dataset=dataset, labels=dataset.labels, seeded=seeded, description=description)


def _reused(dataset: Dataset, target: Target) -> list[str]:
    """Whether there are images among these that the scales were chosen on."""
    if not isinstance(target, BundleTarget) or target.manifest.held_back is None:
        return []
    path = target.folder / target.manifest.held_back.path
    if not path.exists():
        return []
    looked_at = min(len(dataset), HASHED)
    seen = calibrated_hashes(path)
    count = sum(each in seen for each in dataset.image_hashes(0, looked_at))
    if not count:
        return []
    return [f"{count} of the first {looked_at} images were calibrated on: they flatter the quantized files"]
