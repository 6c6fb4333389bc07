"""Any number of images through an artifact that was made for a fixed number, or for any number, a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import DataRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from resnet_edge.graph.geometry import Shape

OPEN_BATCH = 32
"""Images a run where the artifact takes any number: more brings no speed on a CPU, and costs memory."""


def run_in_batches(
    images: NDArray[np.float32],
    *,
    image_shape: Shape,
    batch: int | None,
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    at_once: int | None = None,
) -> NDArray[np.float32]:
    """The outputs (N, classes) for ``images`` (N, height, width, channels).

    Args:
        images: The model's inputs; N is at least 1.
        image_shape: (height, width, channels) that the artifact takes.
        batch: Images a run that the artifact was made for; None where it takes any number.
        run: One run of the artifact: contiguous (batch, height, width, channels) to (batch, classes). Where
            ``batch`` is fixed, the last run is filled up with black images, whose outputs are dropped.
        at_once: Images that ``run`` takes at most, where it takes several batches; None for one batch.

    Raises:
        DataRejectedError: The images do not have the artifact's shape, or there are none.
    """
    if images.shape[1:] != image_shape or not len(images):
        raise DataRejectedError(
            "the images do not fit the artifact's input",
            found=f"an array of shape {images.shape}",
            allowed=f"({', '.join(['N', *map(str, image_shape)])}) with N of at least 1",
            next_step="resize the images, or export the model with their shape (--input-shape)",
        )
    size = batch or 1
    step = max(size, (at_once or batch or OPEN_BATCH) // size * size)
    outputs = []
    for start in range(0, len(images), step):
        chunk = np.ascontiguousarray(images[start : start + step], dtype=np.float32)
        count = len(chunk)
        if count % size:
            filler = np.zeros((-count % size, *image_shape), np.float32)
            chunk = np.concatenate([chunk, filler])
        outputs.append(run(chunk)[:count])
    return np.concatenate(outputs)
