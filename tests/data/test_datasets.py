from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from resnet_edge.data.datasets import Dataset, open_dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.errors import DataRejectedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RAW = Preprocessing.parse("raw", 3, (6, 8))
TORCH = Preprocessing.parse("torch", 3, (6, 8))
GREY = Preprocessing.parse("unit", 1, (6, 8))
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), np.uint8)
LABELS = np.arange(10) % 3


def saved(path: Path, *, compressed: bool = False, **arrays: Any) -> str:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return str(path)


def inputs(dataset: Dataset, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
    return np.concatenate(list(dataset.batches(start, stop, size=4)))


def picture(path: Path, pixels: NDArray[np.uint8], **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, b and a, of three and two images."""
    for number in range(5):
        picture(tmp_path / "ba"[number % 2] / f"{number}.png", PIXELS[number])
    return tmp_path


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_are_streamed_through_the_contract(tmp_path, compressed):
    dataset = open_dataset(
        saved(tmp_path / "a.npz", images=PIXELS, labels=LABELS, compressed=compressed), TORCH
    )
    assert len(dataset) == 10
    np.testing.assert_array_equal(dataset.class_indices(3), LABELS)
    np.testing.assert_array_equal(inputs(dataset), TORCH.apply(PIXELS))
    np.testing.assert_array_equal(inputs(dataset, 3, 8), TORCH.apply(PIXELS[3:8]))
    assert [len(batch) for batch in dataset.batches(2, 100, 3)] == [3, 3, 2]


def test_archives_are_read_no_further_than_asked(tmp_path):
    path = tmp_path / "a.npz"
    saved(path, images=PIXELS)
    with zipfile.ZipFile(path) as archive:
        content = archive.read("images.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content[: -PIXELS[0].size * 3])
    dataset = open_dataset(str(path), RAW)
    np.testing.assert_array_equal(inputs(dataset, 0, 7), PIXELS[:7].astype(np.float32))
    with pytest.raises(DataRejectedError, match="row 7 of 10"):
        inputs(dataset)


def test_float_images_are_model_inputs(tmp_path):
    floats = TORCH.apply(PIXELS)
    for dtype in (np.float32, np.float64, np.float16):
        dataset = open_dataset(saved(tmp_path / "a.npz", images=floats.astype(dtype)), TORCH)
        assert inputs(dataset).dtype == np.float32
        np.testing.assert_array_equal(inputs(dataset), floats.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(("value", "contract"), [(-1, RAW), (256, RAW), (3, TORCH), (1.5, GREY)])
def test_floats_out_of_the_contracts_range_are_refused(tmp_path, value, contract):
    images = np.zeros((4, 6, 8, contract.channels), np.float32)
    images[2, 1, 1, 0] = value
    dataset = open_dataset(saved(tmp_path / "a.npz", images=images), contract)
    with pytest.raises(DataRejectedError, match="outside the range") as caught:
        inputs(dataset)
    assert "image 2" in caught.value.where
    assert inputs(dataset, 0, 2).shape[0] == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_refused(tmp_path, value):
    images = np.zeros((6, 6, 8, 3), np.float32)
    images[5, 0, 0, 0] = value
    with pytest.raises(DataRejectedError, match="NaN") as caught:
        inputs(open_dataset(saved(tmp_path / "a.npz", images=images), RAW))
    assert "image 5" in caught.value.where


@pytest.mark.parametrize(
    ("images", "advice"),
    [
        (PIXELS[..., 0], "8-bit"),
        (PIXELS[..., :1], "8-bit"),
        (PIXELS.transpose(0, 3, 1, 2), "transpose"),
        (PIXELS.astype(np.int64), "8-bit"),
        (PIXELS[:0], "8-bit"),
        (PIXELS[:, :5].astype(np.float32), "model inputs"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, images, advice):
    with pytest.raises(DataRejectedError, match="no images") as caught:
        open_dataset(saved(tmp_path / "a.npz", images=images), RAW)
    assert advice in caught.value.next_step


def test_pickles_are_not_opened(tmp_path):
    path = saved(tmp_path / "a.npz", images=np.array([{}], object))
    with pytest.raises(DataRejectedError, match="Python objects"):
        open_dataset(path, RAW)


def test_arrays_in_column_order_are_refused(tmp_path):
    with pytest.raises(DataRejectedError, match="ascontiguousarray"):
        open_dataset(saved(tmp_path / "a.npz", images=np.asfortranarray(PIXELS)), RAW)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_damaged_archives_are_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataRejectedError, match=r"cannot be read as \.npz"):
        open_dataset(str(path), RAW)


def test_damage_inside_an_archive_is_found(tmp_path):
    path = tmp_path / "a.npz"
    saved(path, images=PIXELS)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataRejectedError, match="CRC"):
        inputs(open_dataset(str(path), RAW))


def test_an_archive_without_images_is_refused(tmp_path):
    with pytest.raises(DataRejectedError, match="no array 'images'"):
        open_dataset(saved(tmp_path / "a.npz", pictures=PIXELS), RAW)


@pytest.mark.parametrize("labels", [LABELS[:9], LABELS * 0.5, LABELS - 1, LABELS[:, None]])
def test_labels_that_are_none_are_refused(tmp_path, labels):
    with pytest.raises(DataRejectedError, match="one class index an image"):
        open_dataset(saved(tmp_path / "a.npz", images=PIXELS, labels=labels), RAW)


def test_labels_are_asked_for_only_where_needed(tmp_path):
    dataset = open_dataset(saved(tmp_path / "a.npz", images=PIXELS), RAW)
    assert len(inputs(dataset)) == 10
    with pytest.raises(DataRejectedError, match="no labels"):
        dataset.class_indices(3)


def test_labels_beyond_the_models_classes_are_refused(tmp_path):
    dataset = open_dataset(saved(tmp_path / "a.npz", images=PIXELS, labels=LABELS), RAW)
    with pytest.raises(DataRejectedError, match="0 to 1"):
        dataset.class_indices(2)


def test_too_few_images_are_refused(tmp_path):
    dataset = open_dataset(saved(tmp_path / "a.npz", images=PIXELS), RAW)
    dataset.check_size(10)
    with pytest.raises(DataRejectedError, match="too few"):
        dataset.check_size(11)


def test_the_shipped_images():
    contract = Preprocessing.parse("unit", 1, (28, 28))
    calibration, test = (
        open_dataset("fashion-mnist", contract, split=split) for split in ("calibration", "test")
    )
    assert (len(calibration), len(test)) == (1000, 10000)
    assert np.bincount(calibration.class_indices(10)[:100]).tolist() == [10] * 10
    assert inputs(calibration, 0, 3).shape == (3, 28, 28, 1)
    assert not set(calibration.image_hashes(0, 200)) & set(test.image_hashes(0, 200))


def test_classes_of_a_folder_take_turns(folder):
    dataset = open_dataset(str(folder), RAW)
    assert dataset.class_indices(2).tolist() == [0, 1, 0, 1, 1]
    np.testing.assert_array_equal(inputs(dataset), PIXELS[[1, 0, 3, 2, 4]].astype(np.float32))
    assert dataset.notes == ()


def test_class_names_give_the_indices(folder):
    dataset = open_dataset(str(folder), RAW, class_names=("x", "b", "a"))
    assert dataset.class_indices(3).tolist() == [2, 1, 2, 1, 1]
    with pytest.raises(DataRejectedError, match="not named like a class"):
        open_dataset(str(folder), RAW, class_names=("x", "b"))


def test_a_folder_without_classes_has_no_labels(tmp_path):
    picture(tmp_path / "one.png", PIXELS[0])
    dataset = open_dataset(str(tmp_path), RAW)
    assert (len(dataset), dataset.labels) == (1, None)


def test_images_of_other_sizes_follow_the_contract(tmp_path):
    sizes = [(20, 30), (6, 8), (50, 12)]
    arrays = [np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for number, pixels in enumerate(arrays):
        picture(tmp_path / f"{number}.png", pixels)
    expected = np.concatenate([TORCH.apply(pixels[None]) for pixels in arrays])
    np.testing.assert_array_equal(inputs(open_dataset(str(tmp_path), TORCH)), expected)


def test_images_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees when taken
    turned = np.rot90(PIXELS[0])
    picture(tmp_path / "a.png", np.ascontiguousarray(turned), exif=exif)
    np.testing.assert_array_equal(inputs(open_dataset(str(tmp_path), RAW))[0], PIXELS[0])


def test_grey_and_transparent_images_are_converted_and_counted(tmp_path):
    grey = PIXELS[0, ..., 0]
    picture(tmp_path / "1.png", grey)
    picture(tmp_path / "2.png", grey)
    picture(tmp_path / "3.png", np.dstack([PIXELS[1], np.full((6, 8), 7, np.uint8)]))
    dataset = open_dataset(str(tmp_path), RAW)
    assert dataset.notes == ("2 grey images converted to RGB", "1 RGBA images converted to RGB")
    np.testing.assert_array_equal(inputs(dataset), np.stack([np.dstack([grey] * 3)] * 2 + [PIXELS[1]]))
    assert "1 RGBA images converted to grey" in open_dataset(str(tmp_path), GREY).notes


def test_a_few_unreadable_files_are_named_and_left_out(folder):
    (folder / "a" / "text.jpg").write_text("no image")
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(folder / "b" / "deep.png")
    dataset = open_dataset(str(folder), RAW)
    assert len(dataset) == 5
    assert len(dataset.class_indices(2)) == 5
    deep, text = sorted(dataset.notes, key=lambda note: "text.jpg" in note)
    assert "deep.png is left out: more than 8 bits" in deep
    assert "text.jpg is left out" in text


def test_many_unreadable_files_are_an_error(folder):
    for number in range(4):
        (folder / "a" / f"{number}.jpg").write_text("no image")
    with pytest.raises(DataRejectedError, match="4 of 9"):
        open_dataset(str(folder), RAW)


def test_a_truncated_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = picture(tmp_path / "a.jpg", noise)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataRejectedError, match="damaged") as caught:
        inputs(open_dataset(str(tmp_path), RAW))
    assert caught.value.where == str(path)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    with pytest.raises(DataRejectedError, match="no images"):
        open_dataset(str(tmp_path), RAW)


@pytest.mark.parametrize("name", ["missing.npz", "mnist", "images.h5"])
def test_names_that_are_no_data_are_usage_errors(tmp_path, name):
    (tmp_path / "images.h5").write_bytes(b"")
    with pytest.raises(UsageError, match="fashion-mnist"):
        open_dataset(str(tmp_path / name), RAW)


def test_the_same_pixels_have_the_same_hash_everywhere(folder, tmp_path):
    archive = open_dataset(saved(tmp_path / "x.npz", images=PIXELS), RAW)
    assert archive.image_hashes(1, 2) == open_dataset(str(folder), TORCH).image_hashes(0, 1)
    assert len(set(archive.image_hashes())) == 10


def test_the_digest_changes_with_images_positions_and_contract(tmp_path):
    path = saved(tmp_path / "a.npz", images=PIXELS)
    dataset = open_dataset(path, RAW)
    digests = [dataset.digest(), dataset.digest(0, 9), dataset.digest(1), open_dataset(path, TORCH).digest()]
    other = PIXELS.copy()
    other[9, 5, 7, 2] ^= 1
    digests.append(open_dataset(saved(tmp_path / "b.npz", images=other), RAW).digest())
    assert len(set(digests)) == len(digests)
    assert open_dataset(saved(tmp_path / "c.npz", images=PIXELS, compressed=True), RAW).digest() == digests[0]
