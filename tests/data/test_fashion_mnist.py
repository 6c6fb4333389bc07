"""The shipped files are what their card says, and what the scripts in ``training`` make."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from resnet_edge.converters import ConversionSettings
from resnet_edge.data import shipped
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge_converters.tflite import TFLiteConverter
from training import datasets, source

FOLDER = Path(__file__).resolve().parents[2] / "calibration_data" / "fashion_mnist"
SHAPES = {"calibration.npz": (1_000, 28, 28, 1), "test.npz": (10_000, 28, 28, 1)}


def digests() -> dict[str, str]:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_digests_are_listed_and_right():
    listed = digests()
    assert set(listed) == {"calibration.npz", "test.npz", "resnet8.safetensors"}
    for name, digest in listed.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest


def test_the_card_names_every_digest():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for digest in digests().values():
        assert digest in card


def test_sizes():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.npz")) <= 6_000_000
    assert (FOLDER / "resnet8.safetensors").stat().st_size <= 400_000


@pytest.mark.parametrize("name", SHAPES)
def test_arrays(name):
    with np.load(FOLDER / name) as data:
        assert set(data) == {"images", "labels"}
        assert (data["images"].dtype, data["images"].shape) == (np.uint8, SHAPES[name])
        assert (data["labels"].dtype, data["labels"].shape) == (np.int64, SHAPES[name][:1])
        assert np.array_equal(np.bincount(data["labels"]), np.full(10, SHAPES[name][0] // 10))


def test_every_prefix_of_the_calibration_images_is_balanced():
    with np.load(FOLDER / "calibration.npz") as data:
        seen = np.cumsum(np.eye(10, dtype=int)[data["labels"]], axis=0)
    assert (seen.max(axis=1) - seen.min(axis=1) <= 1).all()


def test_no_calibration_image_is_a_test_image():
    """Up to byte-identical images: the accuracy measured on the test images is that of unseen ones."""
    with np.load(FOLDER / "calibration.npz") as calibration, np.load(FOLDER / "test.npz") as test:
        used = {image.tobytes() for image in calibration["images"]}
        assert len(used) == 1_000
        assert not any(image.tobytes() in used for image in test["images"])


def test_header_of_the_weights():
    """Read as the format defines it: eight bytes of length, then JSON."""
    content = (FOLDER / "resnet8.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    card = json.loads(header.pop("__metadata__")["resnet_edge"])
    assert card["model"] == "resnet8"
    assert card["input_shape"] == [28, 28, 1]
    assert card["classes"] == 10
    assert tuple(card["labels"]) == shipped.FASHION_MNIST_LABELS
    assert card["preprocess"] == "unit"
    assert {tensor["dtype"] for tensor in header.values()} == {"F32"}
    # The training form: batch norm is still there to be folded.
    assert sum(name.endswith("/moving_variance") for name in header) == 7


@pytest.fixture
def debian_source() -> Path:
    if not source.SOURCE.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    return source.SOURCE


def test_the_script_makes_the_same_files(debian_source, tmp_path):
    datasets.make(tmp_path)
    for name in SHAPES:
        with np.load(tmp_path / name) as made, np.load(FOLDER / name) as kept:
            assert all(np.array_equal(made[key], kept[key]) for key in ("images", "labels"))
        # zlib-ng packs the same bytes differently.
        if "zlib-ng" not in zlib.ZLIB_RUNTIME_VERSION:
            assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_other_source_files_are_refused(debian_source, tmp_path):
    for name in source.DIGESTS:
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(SystemExit, match="is not the file"):
        source.read_test(tmp_path)
    with pytest.raises(SystemExit, match="apt-get install"):
        source.read_test(tmp_path / "nowhere")


def test_the_card_states_the_accuracy_that_the_weights_have(tmp_path, fashion_mnist_graph):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"([\d,]+) of 10,000", card)
    converter = TFLiteConverter()
    converter.convert(fashion_mnist_graph, tmp_path / "model.tflite", ConversionSettings(batch=100))
    contract = Preprocessing.parse("unit", 1, (28, 28))
    with np.load(FOLDER / "test.npz") as data, converter.open(tmp_path / "model.tflite", threads=2) as engine:
        correct = np.count_nonzero(
            engine.run(contract.apply(data["images"])).argmax(axis=1) == data["labels"]
        )
    # Another CPU adds up in another order: of 10,000 images a few are that close to a tie.
    assert abs(correct - int(stated.replace(",", ""))) <= 3
    assert correct >= 9_200
