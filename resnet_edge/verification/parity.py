"""How far an artifact's outputs are from the float reference's, in figures that each see something else.

The largest error sees one wrong output among thousands, SQNR the power of all errors together, the cosine a
change of direction but not of scale, agreement what a user would notice, and the divergence how much the
confidence shifts before any prediction changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from resnet_edge.errors import ModelRejectedError
from resnet_edge.verification.intervals import wilson
from resnet_edge.verification.metrics import TOP, chunks, finite_or_none, rank_of_class, ratio_db
from resnet_edge.verification.report import Parity

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Lower ones count as this (1.2e-7: beside 1, float32 cannot tell them from 0). Integer softmax outputs are
multiples of 1/256, so that exact zeros are common, and without a floor the divergence would be infinite."""


@dataclass(kw_only=True)
class _Sums:
    """What adds up over chunks of images, in float64."""

    images: int = 0
    elements: int = 0
    max_error: float = 0.0
    max_reference: float = 0.0
    error: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    power: float = 0.0
    product: float = 0.0
    divergence: float = 0.0
    top1: int = 0
    top5: int = 0

    def add(
        self, reference: NDArray[np.float64], outputs: NDArray[np.float64], *, probabilities: bool
    ) -> None:
        """Add images; both (n, classes) and finite, n at least 1."""
        error = np.abs(outputs - reference)
        self.images += len(reference)
        self.elements += reference.size
        self.max_error = max(self.max_error, float(error.max()))
        self.max_reference = max(self.max_reference, float(np.abs(reference).max()))
        self.error += float(error.sum())
        self.noise += float(np.vdot(error, error))
        self.signal += float(np.vdot(reference, reference))
        self.power += float(np.vdot(outputs, outputs))
        self.product += float(np.vdot(reference, outputs))
        self.divergence += _divergence(reference, outputs, probabilities=probabilities)
        places = rank_of_class(outputs, reference.argmax(1))
        self.top1 += int(np.count_nonzero(places == 0))
        self.top5 += int(np.count_nonzero(places < TOP))

    @property
    def cosine(self) -> float:
        """Between all outputs and all reference outputs; 1 where both are zero, 0 where one is."""
        length = np.sqrt(self.signal) * np.sqrt(self.power)
        if length == 0:
            return float(self.signal == self.power)
        return float(np.clip(self.product / length, -1, 1))


def _divergence(
    reference: NDArray[np.float64], outputs: NDArray[np.float64], *, probabilities: bool
) -> float:
    """The sum over images of KL(reference || outputs) in nats."""
    if probabilities:
        ours, theirs = (np.log(_distribution(values)) for values in (outputs, reference))
    else:
        ours, theirs = (special.log_softmax(values, axis=1) for values in (outputs, reference))
    return float(np.sum(np.exp(theirs) * (theirs - ours)))


def _distribution(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive probabilities (n, classes) that add up to 1 in every row."""
    positive = np.maximum(values, SMALLEST_PROBABILITY)
    return np.asarray(positive / positive.sum(axis=1, keepdims=True))


def measure_parity(
    reference: NDArray[np.float32],
    outputs: NDArray[np.float32],
    *,
    confidence: float,
    probabilities: bool,
    step: float | None = None,
) -> Parity:
    """Compare outputs (N, classes), which may be on disk and larger than memory, with the reference's.

    Images with a NaN or infinity among their outputs are counted and left out. Where that leaves none, the
    artifact is compared as if it said 0 to everything, so that every figure is a number and none flatters.

    Args:
        reference: The float model's outputs; N is at least 1.
        outputs: The artifact's, dequantized.
        confidence: Of the intervals.
        probabilities: Whether the outputs are probabilities rather than logits.
        step: The scale of an integer output.

    Raises:
        ModelRejectedError: The reference has NaN or infinity itself.
    """
    images, classes = reference.shape
    non_finite, usable = _finite_rows(outputs)
    sums = _Sums()
    for rows in chunks(images, classes):
        theirs, ours = (np.asarray(values[rows], np.float64) for values in (reference, outputs))
        _check_reference(theirs, first=rows.start)
        if not usable.any():
            ours = np.zeros_like(theirs)
        elif not usable[rows].all():
            theirs, ours = theirs[usable[rows]], ours[usable[rows]]
        if len(ours):
            sums.add(theirs, ours, probabilities=probabilities)
    mean = sums.error / sums.elements
    return Parity(
        images=images,
        non_finite=non_finite,
        max_abs_error=sums.max_error,
        mean_abs_error=mean,
        max_abs_reference=sums.max_reference,
        sqnr_db=finite_or_none(ratio_db(sums.signal, sums.noise)),
        cosine=sums.cosine,
        top1_agreement=wilson(sums.top1, sums.images, confidence),
        top5_agreement=wilson(sums.top5, sums.images, confidence) if classes > TOP else None,
        # Rounding can leave a sum of next to nothing below zero.
        kl_divergence=max(0.0, sums.divergence / sums.images),
        max_lsb=None if step is None else sums.max_error / step,
        mean_lsb=None if step is None else mean / step,
    )


def _finite_rows(outputs: NDArray[np.float32]) -> tuple[int, NDArray[np.bool_]]:
    """How many NaN and infinite values there are, and which images (N,) have none."""
    usable = np.empty(len(outputs), bool)
    count = 0
    for rows in chunks(*outputs.shape):
        finite = np.isfinite(outputs[rows])
        usable[rows] = finite.all(axis=1)
        count += int(np.count_nonzero(~finite))
    return count, usable


def _check_reference(outputs: NDArray[np.float64], *, first: int) -> None:
    """Refuse a reference that gives nothing to compare with; ``first`` is the index of the first image."""
    broken = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(broken):
        raise ModelRejectedError(
            "the float model itself computes NaN or infinity",
            where=f"image {first + broken[0]} (counted from 0)",
            next_step="check the image, --preprocess for the range of the model's input, and the weights",
        )
