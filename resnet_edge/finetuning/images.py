"""Images to train on: shuffled, augmented, in batches, from data of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.data.datasets import open_dataset
from resnet_edge.data.sampling import choose_indices
from resnet_edge.errors import DataRejectedError
from resnet_edge.finetuning.frameworks import tf

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resnet_edge.data.datasets import Dataset
    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.finetuning.options import FinetuneOptions

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]

BYTES_IN_MEMORY = 512 * 2**20
"""Model inputs that are in memory at a time. Data that fits is read once; of other data every epoch reads
random parts of this size, in the file's order, and shuffles each."""

VALIDATION_SHARE, MOST_VALIDATION = 10, 1_000
"""Where no validation data are given, one image of so many is kept apart, but at most so many."""

UNLABELLED = -1
"""Stands for a label where there are none."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes that leave an image's class alone.

    Attributes:
        flip: Whether half of the images are mirrored.
        shift: Pixels up, down, left or right, at most; the border is repeated.
    """

    flip: bool = False
    shift: int = 0

    def apply(self, images: Images, random: np.random.Generator) -> Images:
        """The images, changed: (N, height, width, channels)."""
        if not (self.flip or self.shift):
            return images
        count, height, width, _ = images.shape
        down, right = random.integers(-self.shift, self.shift + 1, (2, count, 1))
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        if self.flip:
            mirrored = random.random((count, 1)) < 0.5
            columns = np.where(mirrored, columns[:, ::-1], columns)
        changed: Images = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return changed


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Images of a data set, batch after batch.

    Attributes:
        dataset: Under the artifacts' contract.
        batch: Images a batch.
        seed: Of order and augmentation; every epoch has an order of its own.
        augmentation: Of images in random order.
    """

    dataset: Dataset
    batch: int
    seed: int = 0
    augmentation: Augmentation = Augmentation()

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch)

    def shuffled(self, epoch: int) -> Any:
        """A ``tf.data.Dataset`` of (images, labels) in this epoch's order."""
        return self._streamed(lambda: self._random_batches(np.random.default_rng((self.seed, epoch))))

    def ordered(self) -> Any:
        """A ``tf.data.Dataset`` of (images, labels) as they are."""
        return self._streamed(self._batches)

    def _streamed(self, generate: Any) -> Any:
        shape = tuple(self._image_shape)
        signature = (
            tf.TensorSpec((None, *shape), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        )
        return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(2)

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        height, width = self.dataset.preprocessing.input_size
        return height, width, self.dataset.preprocessing.channels

    @cached_property
    def _images_in_memory(self) -> int:
        return max(self.batch, BYTES_IN_MEMORY // (4 * math.prod(self._image_shape)))

    @cached_property
    def _all(self) -> tuple[Images, Labels]:
        """All images: of data that fits."""
        return self._loaded(np.arange(len(self.dataset)))

    def _loaded(self, positions: NDArray[np.int64]) -> tuple[Images, Labels]:
        """Images at ascending positions."""
        part = self.dataset.pick(positions)
        labels = np.full(len(part), UNLABELLED, np.int64) if part.labels is None else part.labels
        return np.concatenate(list(part.batches(size=256))), labels

    def _batches(self) -> Iterator[tuple[Images, Labels]]:
        labels = self.dataset.labels
        start = 0
        for images in self.dataset.batches(size=self.batch):
            stop = start + len(images)
            yield images, np.full(len(images), UNLABELLED, np.int64) if labels is None else labels[start:stop]
            start = stop

    def _random_batches(self, random: np.random.Generator) -> Iterator[tuple[Images, Labels]]:
        order = random.permutation(len(self.dataset))
        # Whole batches, so that only the last one is short.
        part = self._images_in_memory // self.batch * self.batch
        for start in range(0, len(order), part):
            wanted = order[start : start + part]
            if len(wanted) == len(self.dataset):
                (images, labels), places = self._all, wanted
            else:
                positions = np.sort(wanted)
                images, labels = self._loaded(positions)
                places = np.searchsorted(positions, wanted)
            for first in range(0, len(places), self.batch):
                chosen = places[first : first + self.batch]
                yield self.augmentation.apply(images[chosen], random), labels[chosen]


def open_streams(
    options: FinetuneOptions, contract: Preprocessing, classes: int, class_names: Sequence[str]
) -> tuple[Stream, Stream]:
    """The images to train on and those to validate on.

    Raises:
        UsageError: An option names no data.
        DataRejectedError: There are too few images, or labels are missing or of other classes.
    """

    def opened(text: str) -> Dataset:
        dataset = open_dataset(text, contract, class_names=class_names or None)
        if options.loss == "cross-entropy" or dataset.labels is not None:
            dataset.class_indices(classes)
        return dataset

    training = opened(options.data)
    if options.validation is not None:
        validation = opened(options.validation)
    else:
        wanted = min(MOST_VALIDATION, len(training) // VALIDATION_SHARE)
        apart = choose_indices(len(training), max(1, wanted), training.labels)
        rest = np.setdiff1d(np.arange(len(training)), apart)
        training, validation = training.pick(rest), training.pick(apart)
    if len(training) < options.batch or not len(validation):
        raise DataRejectedError(
            "there are too few images to train on",
            where=options.data,
            found=f"{len(training)} to train on, {len(validation)} to validate on",
            allowed=f"at least one batch, {options.batch}, to train on",
            next_step="give more images, or smaller batches with --batch-size",
        )
    augmentation = Augmentation(flip=options.flip, shift=options.shift)
    return (
        Stream(dataset=training, batch=options.batch, seed=options.seed, augmentation=augmentation),
        Stream(dataset=validation, batch=options.batch),
    )
