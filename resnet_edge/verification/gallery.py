"""Images whose prediction changed, to look at."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.verification.report import ChangedImage, Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from resnet_edge.data.datasets import Image
    from resnet_edge.verification.images import VerificationData

MOST = 24
"""Images shown: a page of them, not the data set."""


def changed_images(
    data: VerificationData,
    reference: NDArray[np.float32],
    outputs: Mapping[str, NDArray[np.float32]],
    *,
    class_names: Sequence[str],
    probabilities: bool,
) -> tuple[ChangedImage, ...]:
    """The images on which most artifacts disagree with the reference, the first of them where they tie.

    Args:
        data: The images.
        reference: The float model's outputs (N, classes).
        outputs: The artifacts', by name.
        class_names: By index; may be empty.
        probabilities: Whether outputs are probabilities rather than logits.
    """
    first = reference.argmax(1)
    changed = {name: array.argmax(1) != first for name, array in outputs.items()}
    votes = np.sum(list(changed.values()), axis=0) if changed else np.zeros(len(reference), int)
    order = np.argsort(-votes, kind="stable")[:MOST]
    chosen = np.sort(order[votes[order] > 0])

    def named(index: int) -> str:
        return class_names[index] if class_names else str(index)

    def prediction(row: NDArray[np.float32]) -> Prediction:
        index = int(row.argmax())
        return Prediction(
            label=named(index), probability=_probability(row, index, probabilities=probabilities)
        )

    return tuple(
        ChangedImage(
            index=int(index),
            png=_png(pixels),
            truth="" if data.labels is None else named(int(data.labels[index])),
            reference=prediction(reference[index]),
            artifacts={name: prediction(outputs[name][index]) for name in outputs if changed[name][index]},
        )
        # In one pass: a packed file is read from its beginning for whatever image of it.
        for index, pixels in zip(chosen, data.dataset.pick(chosen).fitted(), strict=True)
    )


def _probability(row: NDArray[np.float32], index: int, *, probabilities: bool) -> float:
    """What the model gives a class; 0 where its outputs are no numbers."""
    if not np.isfinite(row).all():
        return 0.0
    if probabilities:
        return float(row[index])
    shifted = np.exp(row.astype(np.float64) - row.max())
    return float(shifted[index] / shifted.sum())


def _png(pixels: Image) -> str:
    """An image at the model's size, as base64; empty for one that is a model input already."""
    from PIL.Image import fromarray

    if pixels.dtype != np.uint8:
        return ""
    picture = fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
