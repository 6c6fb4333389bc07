"""Our .onnx files in ONNX Runtime 1.18, which lives in a virtual environment of its own: it needs NumPy 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resnet_edge.converters import ConversionSettings
from resnet_edge.graph.execution import execute
from resnet_edge_converters.onnx import OnnxConverter
from tests.converters.test_onnx_quantized import TIER_1, quantized
from tests.graph_builder import images
from tests.graphs import OPERATOR_GRAPHS

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("run_onnx.py")

TOLERANCE = 1e-5
"""Of max(1, max|reference|): both sides sum a few hundred float32 products, in different orders."""

NEWEST_OPSET = 21
"""The newest that ONNX Runtime 1.18 knows."""


@pytest.fixture(scope="session")
def python_with_ort118() -> Path:
    """The interpreter of the environment that ``make test`` sets up (or ``RESNET_EDGE_ORT118`` points to)."""
    if sys.version_info >= (3, 13):
        pytest.skip("ONNX Runtime 1.18 has no wheels for Python 3.13 and newer")
    folder = ROOT / os.environ.get("RESNET_EDGE_ORT118", ".venv-ort118")
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{folder} is missing: `make ort118` sets it up, `make test` does so by itself")
    return python


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("opset", [ConversionSettings().opset, NEWEST_OPSET])
def test_files_load_and_compute_the_same(
    opset: int, layout: str, python_with_ort118: Path, tmp_path: Path
) -> None:
    settings = ConversionSettings(batch=2, opset=opset, onnx_layout=layout)  # type: ignore[arg-type]
    for name, graph in OPERATOR_GRAPHS.items():
        OnnxConverter().convert(graph, tmp_path / f"{name}.onnx", settings)
        inputs = images(graph)
        stored = inputs.transpose(0, 3, 1, 2) if layout == "nchw" else inputs
        np.save(tmp_path / f"{name}.npy", stored)
    run_all(python_with_ort118, tmp_path)
    for name, graph in OPERATOR_GRAPHS.items():
        expected = execute(graph, images(graph))
        limit = TOLERANCE * max(1, np.abs(expected).max())
        outputs = np.load(tmp_path / f"{name}.out.npy")
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("recipe", ["int8", "int8-weights", "fp16"])
def test_quantized_files_load_and_compute_the_same(
    recipe: str, activations: str, python_with_ort118: Path, tmp_path: Path
) -> None:
    settings = ConversionSettings(batch=2, onnx_activations=activations)  # type: ignore[arg-type]
    expected, limits = {}, {}
    for name in TIER_1:
        model, inputs = quantized(name, recipe), images(OPERATOR_GRAPHS[name])
        path = tmp_path / f"{name}.onnx"
        OnnxConverter().convert(model.graph, path, settings, model)
        np.save(tmp_path / f"{name}.npy", inputs.transpose(0, 3, 1, 2))
        with OnnxConverter().open(path) as engine:
            expected[name] = engine.run(inputs)
        # One step of the output where a tie falls to the other side, or float16's rounding.
        quant = model.spec.tensors.get(model.graph.output)
        limits[name] = 1.01 * quant.scale if quant else 2e-3 * max(1, np.abs(expected[name]).max())
    run_all(python_with_ort118, tmp_path)
    for name in TIER_1:
        outputs = np.load(tmp_path / f"{name}.out.npy")
        np.testing.assert_allclose(outputs, expected[name], rtol=0, atol=limits[name], err_msg=name)


def run_all(python: Path, folder: Path) -> None:
    command = [str(python), str(RUNNER), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1.18.")
