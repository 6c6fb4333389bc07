from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.errors import DataRejectedError, UsageError

EVERY_BYTE = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)

FLOAT32_ROUNDING = 1e-6
"""Relative: two roundings of half a unit in the last place (6e-8) each, with room for cancellation."""


def colours(height: int = 8, width: int = 8, count: int = 2, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, height, width, channels), np.uint8)


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_named_contracts_are_those_of_keras_applications(mode):
    keras_utils = pytest.importorskip("keras").applications.imagenet_utils
    images = colours()
    ours = Preprocessing.parse(mode, 3, (8, 8)).apply(images)
    theirs = keras_utils.preprocess_input(images.astype(np.float64), data_format="channels_last", mode=mode)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING * 255)


def test_torch_is_totensor_and_normalize():
    images = colours()
    published = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    ours = Preprocessing.parse("torch", 3, (8, 8)).apply(images)
    np.testing.assert_allclose(ours, published, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def test_raw_and_unit():
    raw = Preprocessing.parse("raw", 1, (16, 16)).apply(EVERY_BYTE)
    assert np.array_equal(raw, EVERY_BYTE)
    unit = Preprocessing.parse("unit", 1, (16, 16)).apply(EVERY_BYTE)
    np.testing.assert_allclose(unit, EVERY_BYTE / 255, rtol=FLOAT32_ROUNDING)
    assert unit.max() == 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_number_stands_for_every_channel(channels):
    contract = Preprocessing.parse(" 0.25/0.5 ", channels, (8, 8))
    images = colours(channels=channels)
    assert contract.name == "custom"
    expected = (images / 255 - 0.25) / 0.5
    np.testing.assert_allclose(contract.apply(images), expected, rtol=1e-5, atol=FLOAT32_ROUNDING)


@pytest.mark.parametrize("text", ["raw", "unit", "tf", "caffe", "torch", "0.1,0.2,0.3/0.4,0.5,0.6"])
def test_affine_is_what_apply_computes(text):
    contract = Preprocessing.parse(text, 3, (8, 8))
    scale, offset = contract.affine()
    assert scale.dtype == offset.dtype == np.float64
    assert not np.signbit(offset[offset == 0]).any()
    images = colours()
    in_order = images[..., ::-1] if contract.bgr else images
    np.testing.assert_allclose(contract.apply(images), in_order * scale + offset, rtol=1e-5, atol=3e-5)


def test_caffe_is_published_as_bgr_means_of_bytes():
    scale, offset = Preprocessing.parse("caffe", 3, (8, 8)).affine()
    np.testing.assert_allclose(scale, 1, rtol=1e-15)
    np.testing.assert_allclose(offset, [-103.939, -116.779, -123.68], rtol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "imagenet",
        "0.5",
        "0.5/0.5/0.5",
        "0.5,/0.5",
        "a/b",
        "0.5/0",
        "0.5/-1",
        "0.5/nan",
        "nan/0.5",
        "0.5/inf",
        "0.5/1e-300",
        "0.4,0.5/0.1",
        "123.675,116.28,103.53/58.395,57.12,57.375",
    ],
)
def test_bad_text_is_a_usage_error_that_lists_what_is_allowed(text):
    with pytest.raises(UsageError) as caught:
        Preprocessing.parse(text, 3, (8, 8))
    assert caught.value.where == "--preprocess"
    assert caught.value.allowed


def test_unknown_names_learn_every_allowed_one():
    with pytest.raises(UsageError, match="raw, unit, tf, caffe, torch, or MEAN/STD"):
        Preprocessing.parse("imagenet", 3, (8, 8))


@pytest.mark.parametrize(("text", "channels"), [("torch", 1), ("caffe", 4), ("0.1,0.2/0.3", 3), ("raw", 2)])
def test_channels_that_a_contract_is_not_made_for(text, channels):
    with pytest.raises(UsageError):
        Preprocessing.parse(text, channels, (8, 8))


@pytest.mark.parametrize(
    "images",
    [
        colours().astype(np.float32),
        colours()[0],
        colours(channels=4),
        colours().astype(np.int64),
    ],
    ids=["float", "one image", "RGBA", "wide integers"],
)
def test_other_images_are_refused(images):
    with pytest.raises(DataRejectedError):
        Preprocessing.parse("raw", 3, (8, 8)).apply(images)


def test_images_of_the_input_size_are_not_resampled():
    images = colours(33, 57)
    contract = Preprocessing.parse("raw", 3, (33, 57), resize=(40, 70))
    assert np.array_equal(contract.apply(images), images)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resize_is_pillows_and_the_crop_is_central(channels):
    """As torchvision does Resize(48) and CenterCrop(40): shorter side 48, longer rounded down."""
    (image,) = colours(71, 100, count=1, channels=channels)
    (ours,) = Preprocessing.parse("raw", channels, (40, 40), resize=(48, 48)).apply(image[None])
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = np.asarray(picture.resize((48 * 100 // 71, 48), Image.Resampling.BILINEAR))
    assert resized.shape[:2] == (48, 67)
    # (67 - 40) / 2 = 13.5 rounds to the even 14.
    assert np.array_equal(ours, resized.reshape(48, 67, channels)[4:44, 14:54])


def test_downscaling_is_antialiased():
    stripes = np.zeros((1, 256, 256, 1), np.uint8)
    stripes[:, :, ::2] = 255
    grey = Preprocessing.parse("raw", 1, (32, 32)).apply(stripes)
    # Point sampling gives 0 or 255; one eighth of the size averages eight stripes or more.
    assert np.abs(grey - 127.5).max() < 32


@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_images_of_any_size_fill_inputs_of_any_size(height, width, size):
    contract = Preprocessing.parse("unit", 1, size, resize=(size[0] + 3, size[1] + 5))
    white = np.full((1, height, width, 1), 255, np.uint8)
    inputs = contract.apply(white)
    assert inputs.shape == (1, *size, 1)
    # No black rim: the scaled image covers the crop.
    assert (inputs == 1).all()


def test_no_images_give_no_inputs():
    assert Preprocessing.parse("unit", 3, (4, 5)).apply(colours(count=0)).shape == (0, 4, 5, 3)


@pytest.mark.parametrize("text", ["raw", "unit", "tf", "caffe", "torch", "0.1,0.2,0.3/0.4,0.5,0.6"])
def test_json_there_and_back(text):
    contract = Preprocessing.parse(text, 3, (224, 192), resize=(256, 256))
    written = json.dumps(contract.to_json())
    again = Preprocessing.from_json(json.loads(written))
    assert again == contract
    assert json.dumps(again.to_json()) == written


def test_json_is_the_same_text_whatever_the_order_of_its_keys():
    contract = Preprocessing.parse("torch", 3, (224, 224))
    shuffled = dict(reversed(contract.to_json().items()))
    again = Preprocessing.from_json(shuffled)
    assert json.dumps(again.to_json()) == json.dumps(contract.to_json())


@pytest.mark.parametrize(
    "change",
    [
        {"std": [1.0, 1.0, 0.0]},
        {"std": [1.0]},
        {"mean": None},
        {"mean": [0, 0, float("nan")]},
        {"channels": 2},
        {"channels": 1},
        {"order": "grb"},
        {"resize": [8]},
        {"resize": [4, 4]},
        {"input_size": [0, 8]},
        {"surprise": 1},
        {"name": None},
        {"scale": "1"},
        {"channels": 3.0},
        {"input_size": [8, 8, 8]},
    ],
    ids=json.dumps,
)
def test_json_that_is_no_contract_is_refused(change):
    fields = Preprocessing.parse("torch", 3, (8, 8)).to_json()
    with pytest.raises(DataRejectedError):
        Preprocessing.from_json(fields | change)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '"torch"', "1"])
def test_json_that_is_no_such_object_is_refused(content):
    with pytest.raises(DataRejectedError):
        Preprocessing.from_json(json.loads(content))


def test_folded_leaves_the_geometry_and_takes_pixels():
    contract = Preprocessing.parse("caffe", 3, (40, 40), resize=(48, 48))
    images = colours(71, 100)
    pixels = contract.folded().apply(images)
    assert np.array_equal(pixels, np.round(pixels))
    scale, offset = contract.affine()
    np.testing.assert_allclose(
        pixels[..., ::-1] * scale + offset, contract.apply(images), rtol=1e-5, atol=3e-5
    )


def test_description_names_the_geometry_and_the_numbers():
    text = Preprocessing.parse("caffe", 3, (224, 224), resize=(256, 256)).describe()
    assert text == (
        "caffe: BGR, scaled to cover 256x256 (bilinear, antialiased), centre crop 224x224, "
        "255 * (pixel / 255 - (0.48502, 0.457957, 0.407604)) / 1"
    )
    assert "grey" in Preprocessing.parse("unit", 1, (28, 28)).describe()
