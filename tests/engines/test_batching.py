from __future__ import annotations

import numpy as np
import pytest

from resnet_edge.engines.batching import OPEN_BATCH, run_in_batches
from resnet_edge.errors import DataRejectedError

SHAPE = (2, 3, 1)


def numbered(count: int) -> np.ndarray:
    """Images of which each one's sum tells its number."""
    return np.full((count, *SHAPE), np.arange(count)[:, None, None, None], np.float32)


@pytest.mark.parametrize(
    ("count", "batch", "runs"),
    [
        (5, 1, [1] * 5),
        (5, 2, [2, 2, 2]),
        (4, 2, [2, 2]),
        (1, 8, [8]),
        (3, None, [3]),
        (OPEN_BATCH + 1, None, [OPEN_BATCH, 1]),
    ],
)
def test_outputs_keep_their_order_whatever_the_batch(count: int, batch: int | None, runs: list[int]) -> None:
    seen: list[int] = []

    def run(images: np.ndarray) -> np.ndarray:
        assert images.flags.c_contiguous
        seen.append(len(images))
        outputs: np.ndarray = images.sum(axis=(1, 2))
        return outputs

    outputs = run_in_batches(numbered(count), image_shape=SHAPE, batch=batch, run=run)
    assert seen == runs
    np.testing.assert_array_equal(outputs, 6 * np.arange(count, dtype=np.float32)[:, None])


@pytest.mark.parametrize("shape", [(0, 2, 3, 1), (2, 3, 2, 1), (2, 3, 1)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataRejectedError, match=r"\(N, 2, 3, 1\)"):
        run_in_batches(np.zeros(shape, np.float32), image_shape=SHAPE, batch=1, run=lambda images: images)
