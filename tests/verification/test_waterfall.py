"""The error, step by step from the float model to the runtime."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.converters import load_converter
from resnet_edge.graph.execution import execute
from resnet_edge.quantization.integer import run_integer
from resnet_edge.verification import waterfall as module
from resnet_edge.verification.waterfall import images_for, steps_before, waterfall
from tests.graph_builder import images
from tests.verification.artifacts import network, quantized_as, write

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 5], [2, 2, 0]], np.float32)


def test_each_step_is_compared_with_the_reference_and_with_the_step_before() -> None:
    folded = REFERENCE.copy()
    integer = folded.copy()
    integer[0] = [1, 3, 0]
    runtime = integer.copy()
    runtime[0], runtime[1] = [3, 1, 0], [5, 4, 0]
    steps = waterfall(REFERENCE, [("folded graph", folded), ("integers", integer), ("runtime", runtime)])
    assert [step.name for step in steps] == ["folded graph", "integers", "runtime"]
    assert [step.changed for step in steps] == [0, 1, 1]
    assert [step.step_changed for step in steps] == [0, 1, 2]
    power = float(np.square(REFERENCE).sum())
    assert steps[0].sqnr_db is None
    assert steps[0].step_sqnr_db is None
    assert steps[1].sqnr_db == steps[1].step_sqnr_db == pytest.approx(10 * math.log10(power / 8))
    assert steps[2].sqnr_db == pytest.approx(10 * math.log10(power / 25))
    assert steps[2].step_sqnr_db == pytest.approx(10 * math.log10(power / (8 + 25)))


def test_ties_go_to_the_lowest_index() -> None:
    tied = REFERENCE.copy()
    tied[0] = [3, 3, 0]
    (step,) = waterfall(REFERENCE, [("tied", tied)])
    assert step.changed == 0


def test_only_images_that_all_steps_have_are_compared() -> None:
    wrong = REFERENCE[:, ::-1].copy()
    wrong[:2] = REFERENCE[:2]
    steps = waterfall(REFERENCE, [("some", REFERENCE[:2]), ("all", wrong)])
    assert [step.images for step in steps] == [2, 2]
    assert [step.changed for step in steps] == [0, 0]


def test_outputs_that_are_no_numbers_have_a_ratio_that_json_can_hold() -> None:
    broken = np.full_like(REFERENCE, np.nan)
    (step,) = waterfall(REFERENCE, [("broken", broken)])
    assert step.sqnr_db is not None
    assert -10_000 < step.sqnr_db < -1000


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("fp32", ["folded graph"]),
        ("fp16", ["folded graph", "fp16 constants"]),
        ("int8-weights", ["folded graph", "int8-weights constants"]),
        ("int8", ["folded graph", "int8 integer reference"]),
        ("int16x8", ["folded graph", "int16x8 integer reference"]),
    ],
)
def test_the_steps_before_the_runtime(recipe: str, names: list[str], tmp_path: Path) -> None:
    quantized = quantized_as(network(), recipe)
    inputs = images(quantized.graph, 40, seed=1)
    steps = steps_before(quantized, inputs)
    assert [name for name, _ in steps] == names
    np.testing.assert_allclose(steps[0][1], execute(quantized.graph, inputs), atol=1e-5)
    with load_converter("tflite").open(write(quantized, tmp_path, "tflite")) as engine:
        outputs = engine.run(inputs)
    *before, runtime = waterfall(steps[0][1], [*steps, ("LiteRT", outputs)])
    # What the file computes is the last step before it; 8-bit features of int8-weights are LiteRT's own.
    least = 25 if recipe == "int8-weights" else 40
    assert runtime.step_sqnr_db is None or runtime.step_sqnr_db > least
    assert before[0].sqnr_db is None


def test_the_rounding_of_the_kernels_is_taken(tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    inputs = images(quantized.graph, 8, seed=1)
    expected = run_integer(quantized, inputs, kernels="tflite-reference")
    np.testing.assert_array_equal(
        steps_before(quantized, inputs, rounding="tflite-reference")[1][1], expected
    )


def test_large_networks_are_run_on_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    quantized = quantized_as(network(), "int8")
    assert images_for(quantized.graph) == module.IMAGES
    monkeypatch.setattr(module, "_MOST_MACS", 20 * quantized.graph.macs)
    assert images_for(quantized.graph) == 20
    steps = steps_before(quantized, images(quantized.graph, 25))
    assert [len(outputs) for _, outputs in steps] == [20, 20]
    monkeypatch.setattr(module, "_MOST_MACS", 1)
    assert images_for(quantized.graph) > 1
