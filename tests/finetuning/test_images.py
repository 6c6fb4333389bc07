"""Streams of training images: every image once an epoch, in an order that the seed and the epoch decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from resnet_edge.errors import DataRejectedError
from resnet_edge.finetuning import images as module
from resnet_edge.finetuning.images import UNLABELLED, Augmentation, Stream, open_streams
from resnet_edge.finetuning.options import FinetuneOptions
from tests.finetuning import tiny


def batches(stream, epoch=1):
    return [(images.numpy(), labels.numpy()) for images, labels in stream.shuffled(epoch)]


def everything(stream, epoch=1):
    return np.concatenate([images for images, _ in batches(stream, epoch)])


def rows(images):
    return sorted(image.tobytes() for image in images)


STREAM = Stream(dataset=tiny.dataset(40), batch=16, seed=3)


def test_an_epoch_has_every_image_once_with_its_label():
    found = batches(STREAM)
    assert [len(images) for images, _ in found] == [16, 16, 8]
    assert len(STREAM) == len(found)
    inputs = np.concatenate(list(tiny.dataset(40).batches()))
    assert rows(everything(STREAM)) == rows(inputs)
    for images, labels in found:
        # The class is the brightness: steps of 90 of 255, noise below 60.
        np.testing.assert_array_equal((images.min(axis=(1, 2, 3)) * 255 // 90).astype(int), labels)


def test_seed_and_epoch_decide_the_order():
    np.testing.assert_array_equal(everything(STREAM), everything(replace(STREAM)))
    assert not np.array_equal(everything(STREAM), everything(STREAM, epoch=2))
    assert not np.array_equal(everything(STREAM), everything(replace(STREAM, seed=4)))


def test_data_larger_than_memory_is_read_in_parts(monkeypatch):
    monkeypatch.setattr(module, "BYTES_IN_MEMORY", 20 * 6 * 6 * 4)
    stream = replace(STREAM)
    found = batches(stream)
    assert [len(images) for images, _ in found] == [16, 16, 8]
    assert rows(everything(stream)) == rows(everything(STREAM))
    for images, labels in found:
        np.testing.assert_array_equal((images.min(axis=(1, 2, 3)) * 255 // 90).astype(int), labels)


def test_images_in_order_for_validation():
    inputs = np.concatenate([images.numpy() for images, _ in STREAM.ordered()])
    np.testing.assert_array_equal(inputs, np.concatenate(list(tiny.dataset(40).batches())))


def test_images_without_labels():
    stream = Stream(dataset=tiny.dataset(20, labelled=False), batch=8)
    assert all((labels == UNLABELLED).all() for _, labels in batches(stream))
    assert all((labels.numpy() == UNLABELLED).all() for _, labels in stream.ordered())


def test_flips_and_shifts_repeat_the_border():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    many = np.repeat(image, 200, axis=0)
    random = np.random.default_rng(0)
    flipped = Augmentation(flip=True).apply(many, random)
    mirrored = (flipped == image[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((flipped == image).all(axis=(1, 2, 3)) | mirrored).all()
    assert 60 < mirrored.sum() < 140  # half of 200, give or take six standard deviations
    shifted = Augmentation(shift=1).apply(many, random)
    assert len(np.unique(shifted.reshape(200, -1), axis=0)) == 9
    assert (shifted == np.pad(image[0], ((1, 0), (0, 0), (0, 0)), mode="edge")[:3]).all(axis=(1, 2, 3)).any()
    np.testing.assert_array_equal(Augmentation().apply(many, random), many)


def saved(tmp_path, name="data", **arrays):
    path = tmp_path / f"{name}.npz"
    np.savez(path, **arrays)
    return str(path)


def options(data, **settings):
    return FinetuneOptions(method="qat", data=data, batch=8, **settings)


def pixels(count=40):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 6, 1), np.uint8)


def test_one_of_ten_images_is_kept_apart_every_class_in_its_share(tmp_path):
    labels = np.arange(60) % 3
    data = saved(tmp_path, images=pixels(60), labels=labels)
    training, validation = open_streams(options(data), tiny.CONTRACT, 3, ())
    assert len(training.dataset) == 54
    assert np.bincount(validation.dataset.class_indices(3)).tolist() == [2, 2, 2]
    assert not set(rows(everything(training))) & set(rows(np.concatenate(list(validation.dataset.batches()))))


def test_validation_data_of_its_own(tmp_path):
    data = saved(tmp_path, images=pixels(16))
    other = saved(tmp_path, "other", images=pixels(5))
    training, validation = open_streams(options(data, validation=other), tiny.CONTRACT, 3, ())
    assert (len(training.dataset), len(validation.dataset)) == (16, 5)


def test_tiny_data_are_refused(tmp_path):
    with pytest.raises(DataRejectedError, match="too few images to train on") as caught:
        open_streams(options(saved(tmp_path, images=pixels(8))), tiny.CONTRACT, 3, ())
    assert "7 to train on, 1 to validate on" in caught.value.found
    assert "--batch-size" in caught.value.next_step


def test_labels_are_needed_for_cross_entropy_only(tmp_path):
    data = saved(tmp_path, images=pixels())
    open_streams(options(data), tiny.CONTRACT, 3, ())
    with pytest.raises(DataRejectedError, match="no labels"):
        open_streams(options(data, loss="cross-entropy"), tiny.CONTRACT, 3, ())


@pytest.mark.parametrize("loss", ["distillation", "cross-entropy"])
def test_labels_of_another_model_are_refused(tmp_path, loss):
    data = saved(tmp_path, images=pixels(), labels=np.arange(40) % 4)
    with pytest.raises(DataRejectedError, match="no class of the model"):
        open_streams(options(data, loss=loss), tiny.CONTRACT, 3, ())
