"""How often an artifact and the float reference are right, on the same labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.verification.intervals import paired_drop, wilson
from resnet_edge.verification.metrics import TOP, chunks, rank_of_class
from resnet_edge.verification.report import Accuracy, Change, ClassAccuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_CHANGES = 20
"""Pairs of classes that a report lists."""

NO_PREDICTION = -1
"""Stands for the class of an image that has NaN or infinity among its outputs: it is never right."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What outputs say about labelled images.

    Attributes:
        classes: First class of each image (N,), ties to the lowest index; or ``NO_PREDICTION``.
        ranks: Place of each image's label (N,), 0 for the first; behind the last without prediction.
    """

    classes: NDArray[np.int64]
    ranks: NDArray[np.int64]

    @classmethod
    def of(cls, outputs: NDArray[np.float32], labels: NDArray[np.integer]) -> Predictions:
        """Read outputs (N, classes), which may be on disk and larger than memory."""
        count, width = outputs.shape
        classes, ranks = np.empty(count, np.int64), np.empty(count, np.int64)
        for rows in chunks(count, width):
            values = np.asarray(outputs[rows])
            finite = np.isfinite(values).all(axis=1)
            classes[rows] = np.where(finite, values.argmax(axis=1), NO_PREDICTION)
            ranks[rows] = np.where(finite, rank_of_class(values, labels[rows]), width)
        return cls(classes=classes, ranks=ranks)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image's first class is its label."""
        return np.asarray(self.ranks == 0)


def measure_accuracy(
    reference: NDArray[np.float32],
    outputs: NDArray[np.float32],
    labels: NDArray[np.integer],
    *,
    class_names: Sequence[str],
    confidence: float,
) -> Accuracy:
    """Compare an artifact's outputs (N, classes) and the reference's with the labels (N,).

    Args:
        reference: The float model's outputs; N is at least 1.
        outputs: The artifact's.
        labels: Indices of classes, each below the number of outputs.
        class_names: By index; empty where classes have no names.
        confidence: Of the intervals.
    """
    images, classes = outputs.shape
    labels = np.asarray(labels)
    names = class_names or [str(index) for index in range(classes)]
    before, after = Predictions.of(reference, labels), Predictions.of(outputs, labels)
    lost = int(np.count_nonzero(before.right & ~after.right))
    won = int(np.count_nonzero(after.right & ~before.right))
    top5 = int(np.count_nonzero(after.ranks < TOP))
    return Accuracy(
        top1=wilson(int(after.right.sum()), images, confidence),
        top5=wilson(top5, images, confidence) if classes > TOP else None,
        reference_top1=wilson(int(before.right.sum()), images, confidence),
        drop=paired_drop(lost, won, images, confidence),
        worst_class=_worst_class(before, after, labels, names),
        changes=_changes(before, after, names),
    )


def _worst_class(
    before: Predictions, after: Predictions, labels: NDArray[np.integer], names: Sequence[str]
) -> ClassAccuracy:
    """The class with the largest drop, of equal ones the first; classes without images are left out."""
    images = np.bincount(labels, minlength=len(names))
    right_before, right_after = (
        np.bincount(labels[predictions.right], minlength=len(names)) for predictions in (before, after)
    )
    present = np.flatnonzero(images)
    worst = int(present[np.argmax(((right_before - right_after) / np.maximum(images, 1))[present])])
    return ClassAccuracy(
        label=names[worst],
        images=int(images[worst]),
        accuracy=float(right_after[worst] / images[worst]),
        reference_accuracy=float(right_before[worst] / images[worst]),
    )


def _changes(before: Predictions, after: Predictions, names: Sequence[str]) -> tuple[Change, ...]:
    """The most frequent changes, of equally frequent ones those of the lowest classes first."""
    changed = before.classes != after.classes
    pairs, which, often = np.unique(
        np.stack([before.classes[changed], after.classes[changed]]),
        axis=1,
        return_inverse=True,
        return_counts=True,
    )
    # Some versions of NumPy give the inverse with the shape of the input.
    which = which.ravel()
    lost = np.bincount(which, before.right[changed], minlength=len(often))
    won = np.bincount(which, after.right[changed], minlength=len(often))
    return tuple(
        Change(
            reference=_name(pairs[0, pair], names),
            artifact=_name(pairs[1, pair], names),
            images=int(often[pair]),
            lost=int(lost[pair]),
            won=int(won[pair]),
        )
        for pair in np.argsort(-often, kind="stable")[:MOST_CHANGES]
    )


def _name(index: int, names: Sequence[str]) -> str:
    """A class's name, or that there was no prediction."""
    return "not finite" if index == NO_PREDICTION else names[index]
