"""Outputs go to disk, image by image in their order, and a full disk is told."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from resnet_edge.data.datasets import open_dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.errors import ConversionFailedError
from resnet_edge.verification import running

CLASSES = 3


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, images=np.arange(200 * 48).reshape(200, 4, 4, 3).astype(np.uint8))
    return open_dataset(str(path), Preprocessing.parse("raw", 3, (4, 4)))


def first_pixels(images):
    return images.reshape(len(images), -1)[:, :CLASSES]


def test_every_model_gets_every_image_in_order_whatever_the_blocks(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "BLOCK_BYTES", 7 * 4 * 4 * 3 * 4)  # seven images
    told: list[int] = []
    models = {"one": first_pixels, "two": lambda images: 2 * first_pixels(images)}
    found = running.run_all(models, dataset, classes=CLASSES, folder=tmp_path, progress=told.append)
    expected = first_pixels(np.concatenate(list(dataset.batches())))
    assert np.array_equal(found.arrays["one"], expected)
    assert np.array_equal(found.arrays["two"], 2 * expected)
    assert not found.lost
    assert told == [*range(7, 200, 7), 200]


def test_a_disk_without_room_is_told_before_anything_runs(dataset, tmp_path):
    def never(images):
        raise AssertionError("there is no room for what it computes")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # of the 2,400 bytes that are needed
    try:
        with pytest.raises(ConversionFailedError, match="no room"):
            running.run_all({"one": never}, dataset, classes=CLASSES, folder=tmp_path, progress=print)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
