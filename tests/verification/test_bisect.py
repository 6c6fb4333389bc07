"""The reproduction of one operator runs on its own, and shows the difference that was found."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.data.datasets import open_dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.errors import ConversionFailedError, UsageError
from resnet_edge.graph import INPUT_NAME
from resnet_edge.verification.bisect import operator_to_blame, write_reproduction
from resnet_edge.verification.diagnosis import Diagnosis
from resnet_edge.verification.gates import Subject
from resnet_edge.verification.layers import compare_layers
from resnet_edge.verification.target import Candidate
from tests.graph_builder import images
from tests.verification.artifacts import network, quantized_as, write

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.verification.layer import OperatorVerdict

FORMATS = ("tflite", "onnx")


def run(script: Path) -> tuple[float, int]:
    """The largest difference that the script prints, and how many values differ."""
    # From another folder and without this package's sources in sight.
    command = [sys.executable, "-I", str(script)]
    done = subprocess.run(command, cwd="/", check=True, capture_output=True, text=True, timeout=120)
    found = re.search(r"largest difference: (\S+?)(?: LSB)?; (\d+) of \d+ values differ", done.stdout)
    assert found is not None, done.stdout
    return float(found[1]), int(found[2])


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("recipe", "name"), [("int8", "sum"), ("fp32", "three")])
def test_a_healthy_operator_shows_no_difference(format_: str, recipe: str, name: str, tmp_path: Path) -> None:
    quantized = quantized_as(network(), recipe)
    path, inputs = write(quantized, tmp_path, format_), images(quantized.graph)
    script = write_reproduction(tmp_path / "new" / "folder", name, path, format_, quantized, inputs)
    difference, _ = run(script)
    # One step where the real result is all but a half; float32 sums in another order.
    assert difference <= (1 if recipe == "int8" else 1e-5)
    names = {path.name for path in script.parent.iterdir()}
    assert names == {f"operator.{format_}", "inputs.npz", "expected.npy", "run.py"}
    assert "resnet_edge" not in script.read_text("utf-8")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_broken_operator_shows_by_how_much(format_: str, tmp_path: Path) -> None:
    """The kernels are healthy here, so it is the expectation that is changed."""
    quantized = quantized_as(network(), "int8")
    path, inputs = write(quantized, tmp_path, format_), images(quantized.graph)
    script = write_reproduction(tmp_path / "out", "two", path, format_, quantized, inputs)
    expected = np.load(script.with_name("expected.npy"))
    np.save(script.with_name("expected.npy"), expected ^ 8)
    assert run(script)[1] == expected.size
    assert 7 <= run(script)[0] <= 9


def test_the_reference_kernels_are_asked_for_where_they_were_used(tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    path, inputs = write(quantized, tmp_path, "tflite"), images(quantized.graph)
    script = write_reproduction(
        tmp_path / "out", "three", path, "tflite", quantized, inputs, kernels="reference"
    )
    assert "BUILTIN_REF" in script.read_text("utf-8")
    assert run(script) == (0, 0)


def test_the_operator_to_blame(tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    path = write(quantized, tmp_path, "tflite")
    healthy = compare_layers(path, "tflite", quantized, images(quantized.graph))
    assert operator_to_blame(healthy).node == healthy.worst
    assert healthy.worst not in ("two", "three")
    cases: tuple[tuple[dict[str, OperatorVerdict], str], ...] = (
        ({"three": "kernel bug"}, "three"),
        ({"three": "differs in file"}, "three"),
        ({"two": "differs in file", "three": "kernel bug"}, "three"),
    )
    for wrong, named in cases:
        layers = [replace(layer, verdict=wrong.get(layer.node, layer.verdict)) for layer in healthy.layers]
        assert operator_to_blame(replace(healthy, layers=tuple(layers))).node == named


def test_the_image_is_no_operator(tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    with pytest.raises(UsageError, match="no operator"):
        write_reproduction(tmp_path, INPUT_NAME, tmp_path, "tflite", quantized, images(quantized.graph))


@pytest.mark.parametrize(
    ("raised", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, ConversionFailedError)]
)
def test_half_a_reproduction_does_not_stay(raised, told, tmp_path, monkeypatch) -> None:
    quantized = quantized_as(network(), "int8")
    pixels = np.abs(images(quantized.graph))  # float images must be what the contract makes of pixels
    path = tmp_path / "images.npz"
    np.savez(path, images=pixels)
    diagnosis = Diagnosis(
        dataset=open_dataset(str(path), Preprocessing.parse("raw", 3, pixels.shape[1:3])),
        reference=np.zeros((len(pixels), 1), np.float32),
        kernels="xnnpack",
    )
    artifact = write(quantized, tmp_path, "tflite")
    candidate = Candidate(path=artifact, format="tflite", precision="int8", size=1)
    subject = Subject(artifact=artifact.name, runner="local", precision="int8")
    assert diagnosis.layers(candidate, quantized, subject)[1].verdict == "pass"

    def interrupted(*arguments: object, **options: object) -> None:
        raise raised

    monkeypatch.setattr(np, "save", interrupted)  # between the inputs and the script
    with pytest.raises(told):
        diagnosis.reproduce_worst(tmp_path / "out")
    assert not (tmp_path / "out").exists()
