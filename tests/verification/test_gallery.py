"""The images that are shown are those that changed, with their own pixels, labels and predictions."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from resnet_edge.data.datasets import open_dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.verification.gallery import MOST, changed_images
from resnet_edge.verification.images import VerificationData
from resnet_edge.verification.report import Data

COUNT, NAMES = 60, ("ant", "bee", "cat")


def data_of(tmp_path, images):
    path = tmp_path / "images.npz"
    np.savez_compressed(path, images=images, labels=np.arange(COUNT) % 3)
    dataset = open_dataset(str(path), Preprocessing.parse("unit", images.shape[3], images.shape[1:3]))
    description = Data(name="", images=COUNT, available=COUNT, labelled=True, digest="")
    return VerificationData(dataset=dataset, labels=dataset.labels, seeded=False, description=description)


def gallery(data, outputs):
    reference = np.tile(np.array([2, 1, 0], np.float32), (COUNT, 1))
    return changed_images(data, reference, outputs, class_names=NAMES, probabilities=False)


def changed_at(*indices):
    outputs = np.tile(np.array([2, 1, 0], np.float32), (COUNT, 1))
    outputs[list(indices)] = [0, 1, 2]
    return outputs


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_is_shown_with_its_own_pixels_and_what_is_said_of_it(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 5, 6, channels), np.uint8)
    found = gallery(data_of(tmp_path, images), {"a": changed_at(7, 41), "b": changed_at(41)})
    assert [each.index for each in found] == [7, 41]
    for each in found:
        with Image.open(io.BytesIO(base64.b64decode(each.png))) as picture:
            assert np.array_equal(np.asarray(picture), images[each.index].squeeze())
        assert each.truth == NAMES[each.index % 3]
        assert each.reference.label == "ant"
    assert [sorted(each.artifacts) for each in found] == [["a"], ["a", "b"]]
    assert found[1].artifacts["b"].label == "cat"
    expected = np.exp(2) / np.exp([0, 1, 2]).sum()
    assert found[1].artifacts["b"].probability == pytest.approx(expected)


def test_the_images_on_which_most_artifacts_disagree_are_shown(tmp_path):
    images = np.zeros((COUNT, 5, 6, 3), np.uint8)
    found = gallery(data_of(tmp_path, images), {"a": changed_at(*range(COUNT)), "b": changed_at(58, 59)})
    assert [each.index for each in found] == [*range(MOST - 2), 58, 59]


def test_model_inputs_have_no_picture_and_nan_no_probability(tmp_path):
    images = np.random.default_rng(0).uniform(0, 1, (COUNT, 5, 6, 3)).astype(np.float32)
    outputs = changed_at(3)
    outputs[3, 1] = np.nan
    (found,) = gallery(data_of(tmp_path, images), {"a": outputs})
    assert found.png == ""
    assert found.artifacts["a"].probability == 0


def test_nothing_changed_shows_nothing(tmp_path):
    images = np.zeros((COUNT, 5, 6, 3), np.uint8)
    assert gallery(data_of(tmp_path, images), {"a": changed_at()}) == ()
    assert gallery(data_of(tmp_path, images), {}) == ()
