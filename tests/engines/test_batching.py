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


@pytest.mark.parametrize(
    ("count", "batch", "at_once", "runs"),
    [(5, 2, 4, [4, 2]), (5, 2, 3, [2, 2, 2]), (5, 3, 1, [3, 3]), (5, None, 4, [4, 1]), (5, 1, 32, [5])],
)
def test_several_batches_at_once(count: int, batch: int | None, at_once: int, runs: list[int]) -> None:
    seen: list[int] = []

    def run(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        outputs: np.ndarray = images.sum(axis=(1, 2))
        return outputs

    outputs = run_in_batches(numbered(count), image_shape=SHAPE, batch=batch, run=run, at_once=at_once)
    assert seen == runs
    np.testing.assert_array_equal(outputs, 6 * np.arange(count, dtype=np.float32)[:, None])
