from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from PIL import Image

from resnet_edge.converters import ConversionSettings
from resnet_edge.data import shipped
from resnet_edge.data.device_scripts import render_device_script
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.graph.execution import execute
from resnet_edge_converters.onnx import OnnxConverter
from resnet_edge_converters.tflite import TFLiteConverter
from tests.graph_builder import CLASSES, GraphBuilder

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.converters import Converter
    from resnet_edge.graph import Graph

Kind = Literal["tflite", "onnx"]

CONVERTERS: dict[Kind, Converter] = {"tflite": TFLiteConverter(), "onnx": OnnxConverter()}
KINDS = tuple(CONVERTERS)

ABSENT = ("h5py", "keras", "onnx", "resnet_edge", "resnet_edge_converters", "tensorflow", "tf_keras")
RUNTIMES = {"tflite": "ai_edge_litert", "onnx": "onnxruntime"}

LAUNCHER = """
import runpy, sys
absent, script, image, saved = sys.argv[1].split(","), *sys.argv[2:]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not on this device")

sys.meta_path.insert(0, Absent())
sys.argv = [script, image]
variables = runpy.run_path(script, run_name="__main__")
import numpy
numpy.savez(saved, model_input=variables["model_input"], scores=variables["scores"])
"""


def run_on_device(kind: str, script: Path, image: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Run a script where only its own runtime, NumPy and Pillow can be imported.

    Returns the lines it printed, and its model input and scores.
    """
    other_runtimes = [name for other, name in RUNTIMES.items() if other != kind]
    absent = ",".join((*ABSENT, *other_runtimes))
    saved = script.with_suffix(".npz")
    command = [sys.executable, "-I", "-c", LAUNCHER, absent, str(script), str(image), str(saved)]
    # In another folder: the script finds its model by itself.
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/")
    with np.load(saved) as arrays:
        return done.stdout.splitlines(), arrays["model_input"], arrays["scores"]


def bundle(folder: Path, kind: Kind, graph: Graph, preprocessing: Preprocessing, **options) -> Path:
    """An artifact of ``graph`` and the script for it, side by side."""
    settings = ConversionSettings(batch=options.get("batch", 1), onnx_layout=options.get("layout", "nchw"))
    artifact = folder / f"model.{kind}"
    CONVERTERS[kind].convert(graph, artifact, settings)
    script = folder / f"run_{kind}.py"
    text = render_device_script(kind, artifact.name, preprocessing, **options)
    script.write_text(text, encoding="utf-8")
    return script


def photo(channels: int, height: int = 61, width: int = 90) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)


def save_photo(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    return path


def pixel_model(height: int, width: int, channels: int) -> Graph:
    """Weighs every pixel and channel differently."""
    builder = GraphBuilder((height, width, channels))
    return builder.classified(builder.image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("channels", "contract"),
    [(3, "caffe"), (3, "torch"), (1, "unit"), (4, "0.1,0.2,0.3,0.4/0.5,0.6,0.7,0.8")],
)
def test_photos_become_what_the_contract_says(tmp_path, kind, channels, contract):
    preprocessing = Preprocessing.parse(contract, channels, (20, 24), resize=(25, 30))
    model = pixel_model(20, 24, channels)
    script = bundle(tmp_path, kind, model, preprocessing)
    pixels = photo(channels)
    lines, model_input, scores = run_on_device(kind, script, save_photo(tmp_path / "photo.png", pixels))

    expected = preprocessing.apply(pixels[None])
    assert np.array_equal(model_input, expected.transpose(0, 3, 1, 2) if kind == "onnx" else expected)
    # The runtime adds up to 1,920 products of inputs up to 152 in another order.
    np.testing.assert_allclose(scores, execute(model, expected)[0], rtol=1e-4, atol=1e-3)
    best = np.argsort(-scores)[:3]
    assert lines == [f"logits {scores[k]:8.4f}  class {k}" for k in best]


def test_photos_are_turned_the_right_way_up_and_made_the_models_kind(tmp_path):
    """A camera's picture: orientation in EXIF, and colours where the model wants grey."""
    preprocessing = Preprocessing.parse("raw", 1, (90, 61))
    script = bundle(tmp_path, "tflite", pixel_model(90, 61, 1), preprocessing)
    picture = Image.fromarray(photo(3))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 270 degrees
    picture.save(tmp_path / "photo.png", exif=exif)
    _, model_input, _ = run_on_device("tflite", script, tmp_path / "photo.png")
    upright = picture.transpose(Image.Transpose.ROTATE_270).convert("L")
    assert np.array_equal(model_input[0, ..., 0], np.asarray(upright))


@pytest.mark.parametrize("kind", KINDS)
def test_artifacts_of_a_fixed_batch_get_a_full_one(tmp_path, kind):
    preprocessing = Preprocessing.parse("unit", 3, (8, 8))
    script = bundle(tmp_path, kind, pixel_model(8, 8, 3), preprocessing, batch=3)
    image = save_photo(tmp_path / "photo.png", photo(3, 8, 8))
    _, model_input, scores = run_on_device(kind, script, image)
    assert len(model_input) == 3
    assert scores.shape == (CLASSES,)


def test_nhwc_artifacts_get_their_layout(tmp_path):
    preprocessing = Preprocessing.parse("unit", 3, (8, 8))
    script = bundle(tmp_path, "onnx", pixel_model(8, 8, 3), preprocessing, layout="nhwc")
    pixels = photo(3, 8, 8)
    _, model_input, _ = run_on_device("onnx", script, save_photo(tmp_path / "photo.png", pixels))
    assert np.array_equal(model_input, preprocessing.apply(pixels[None]))


def test_artifacts_with_the_arithmetic_inside_get_pixels():
    preprocessing = Preprocessing.parse("caffe", 3, (8, 8))
    folded = render_device_script("tflite", "model.tflite", preprocessing, fold_input=True)
    assert folded == render_device_script("tflite", "model.tflite", Preprocessing.parse("raw", 3, (8, 8)))
    assert folded != render_device_script("tflite", "model.tflite", preprocessing)


def literal_after(script: str, name: str) -> object:
    (value,) = (
        node.value
        for node in ast.parse(script).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name
    )
    return ast.literal_eval(value)


@pytest.mark.parametrize(
    "label",
    [
        "'],; import os #",
        '"""\n$artifact ${scale}',
        "{0} %s \\N{BULLET} \\",
        "a\r\nb\u2028c",
        "Öl \N{SNOWMAN}",
        "a long name " * 20,
    ],
)
def test_labels_enter_as_literals(label):
    labels = (label, "plain", label)
    preprocessing = Preprocessing.parse("unit", 1, (28, 28))
    script = render_device_script("onnx", "model.onnx", preprocessing, labels=labels)
    assert literal_after(script, "LABELS") == list(labels)


@pytest.mark.parametrize("name", ["it's.tflite", 'a"b"""c.tflite', "$label.tflite", "back\\slash\n.tflite"])
def test_file_names_enter_as_literals(name):
    script = render_device_script("tflite", name, Preprocessing.parse("unit", 1, (28, 28)))
    literals = [node.value for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Constant)]
    assert name in literals


def test_a_thousand_labels_keep_their_lines_short():
    labels = tuple(f"class number {number}" for number in range(1000))
    script = render_device_script("onnx", "m.onnx", Preprocessing.parse("unit", 1, (28, 28)), labels=labels)
    assert max(map(len, script.splitlines())) <= 110


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_model_knows_an_ankle_boot(tmp_path, kind, fashion_mnist_graph):
    found = shipped.dataset("fashion-mnist")
    with np.load(found.test) as data:
        (pixels,), (label,) = data["images"][:1], data["labels"][:1]
    preprocessing = Preprocessing.parse("unit", 1, (28, 28))
    script = bundle(tmp_path, kind, fashion_mnist_graph, preprocessing, labels=found.labels)
    lines, _, scores = run_on_device(kind, script, save_photo(tmp_path / "boot.png", pixels))
    assert found.labels[label] == "Ankle boot"
    assert scores.argmax() == label
    assert len(lines) == 3
    assert lines[0].startswith("probabilities")
    assert lines[0].endswith("Ankle boot")
