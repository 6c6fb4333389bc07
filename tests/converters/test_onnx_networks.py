"""Trained and published networks as quantized .onnx files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest

from resnet_edge.engines.onnx import OnnxEngine
from resnet_edge.graph.importing import import_keras
from resnet_edge.models.build import build_model
from resnet_edge.models.registry import find_model
from resnet_edge.passes import run_passes
from resnet_edge.quantization.integer import run_integer
from resnet_edge.quantization.readback import check
from resnet_edge_converters.onnx import OnnxConverter
from tests.converters.test_onnx_quantized import assert_integer_inside, convert, optimized, quantize
from tests.converters.test_tflite_networks import (
    Trained,
    resnet8,  # noqa: F401 - fixtures
    resnet20,  # noqa: F401
    signal_to_noise,
    trained,  # noqa: F401
)

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.graph import Graph

SHAPE = (32, 32, 3)
"""The operators are the same at any size."""


def published(name: str) -> Graph:
    model: Any
    if name == "keras.applications":
        model = keras.applications.ResNet50(weights=None, input_shape=SHAPE, classes=10)
    else:
        model = build_model(find_model(name), input_shape=SHAPE, width=0.25 if "50" in name else 1)
    return run_passes(import_keras(model)).graph


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", {"QLinearConv": 19, "QLinearAdd": 9, "QGemm": 1, "Pad": 2, "MaxPool": 2}),
        # 49 convolutions with 4 projections, and 17 batch norms that Add or a pool keeps from being folded.
        ("resnet50v2", {"QLinearConv": 70, "QLinearAdd": 16, "QGemm": 1, "Pad": 1, "MaxPool": 4}),
        (
            "seresnet50",
            {"QLinearConv": 85, "QLinearAdd": 16, "QGemm": 1, "QLinearMul": 16, "QLinearSigmoid": 16},
        ),
        ("resnext50_32x4d", {"QLinearConv": 53, "QLinearAdd": 16, "QGemm": 1, "MaxPool": 1}),
        ("keras.applications", {"QLinearConv": 53, "QLinearAdd": 16, "QGemm": 1, "MaxPool": 1}),
    ],
)
def test_no_float_operator_remains(name: str, expected: dict[str, int], tmp_path: Path) -> None:
    graph = published(name)
    model = quantize(graph)
    path = convert(model, tmp_path)
    check(OnnxConverter().read_back(path, model), model, where=path.name)
    counts = optimized(path)
    assert_integer_inside(counts)
    assert {operator: counts[operator] for operator in expected} == expected
    assert counts["Transpose"] == 0


@pytest.mark.parametrize(
    ("recipe", "decibels", "agreement"),
    [
        # As of the .tflite files, whose integers are the same: a transposed weight leaves about 0 dB.
        ("int8", 25, 0.97),
        ("int8-per-tensor", 22, 0.96),
        ("fp16", 50, 0.995),
        ("int8-weights", 25, 0.97),
    ],
)
def test_stays_close_to_float(
    trained: Trained,  # noqa: F811 - the fixture
    recipe: str,
    decibels: float,
    agreement: float,
    tmp_path: Path,
) -> None:
    model = trained.quantized(recipe)
    path = convert(model, tmp_path, batch=None)
    check(OnnxConverter().read_back(path, model), model, where=path.name)
    with OnnxEngine(path) as engine:
        actual = engine.run(trained.images)
    assert signal_to_noise(actual, trained.expected) > decibels
    assert np.mean(actual.argmax(1) == trained.expected.argmax(1)) >= agreement
    correct, before = (np.mean(scores.argmax(1) == trained.labels) for scores in (actual, trained.expected))
    # Of 250 images as many as the agreement allows, in either direction.
    assert abs(correct - before) <= 1 - agreement + 1e-9


@pytest.mark.parametrize(
    ("activations", "equal"),
    [
        ("uint8", 0.99),
        ("int8", 0.9),  # partly in float on x86, where sums that should be ties are none
    ],
)
def test_both_activation_types_are_the_integer_reference(
    trained: Trained,  # noqa: F811 - the fixture
    activations: str,
    equal: float,
    tmp_path: Path,
) -> None:
    model, some = trained.quantized("int8"), trained.images[:40]
    with OnnxEngine(convert(model, tmp_path, batch=None, onnx_activations=activations)) as engine:
        actual = engine.run(some)
    expected = run_integer(model, some)
    # A tie that falls to the other side somewhere moves what comes behind it.
    assert np.mean(actual == expected) >= equal


def test_sizes(trained: Trained, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    parameters = trained.graph.parameters
    size = {}
    for recipe in ("int8", "fp16", "int8-weights"):
        (tmp_path / recipe).mkdir()
        size[recipe] = convert(trained.quantized(recipe), tmp_path / recipe).stat().st_size
    # Beside the weights at most 2 kB for each operator, its constants' names and its scales.
    others = 2000 * len(trained.graph.nodes)
    assert size["int8"] < parameters + others
    assert size["int8-weights"] < parameters + others
    assert size["fp16"] < 2 * parameters + others
