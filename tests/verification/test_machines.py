"""What two machines must agree on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from resnet_edge.graph.operators import Function, GlobalAveragePool
from resnet_edge.quantization.spec import Quantized, QuantSpec
from resnet_edge.runners import Machine
from resnet_edge.verification import machines
from resnet_edge.verification.machines import Promise, compare_machines, has_half_arithmetic, promised
from resnet_edge.verification.opening import Place
from resnet_edge.verification.target import Candidate
from tests.graph_builder import GraphBuilder

if TYPE_CHECKING:
    from resnet_edge.graph import Graph


def classifier(function: Function | None = None) -> Graph:
    b = GraphBuilder((4, 4, 3))
    logits = b.dense(b.add(GlobalAveragePool(), b.image))
    return b.graph(logits if function is None else b.function(logits, function))


GRAPH = classifier()
CANDIDATE = Candidate(path=Path("net.tflite"), format="tflite", precision="int8", size=1)
PLACE = Place(candidate=CANDIDATE, runner="ssh://board")
HERE = np.array([[0.0, 4.0], [1.0, 0.5]], np.float32)


def made_by(recipe: str, **settings: Any) -> Quantized:
    spec = QuantSpec(recipe=recipe, tensors={}, constants={})
    return Quantized(graph=GRAPH, spec=replace(spec, **settings), constants={})


@pytest.mark.parametrize(
    ("recipe", "kernels", "half", "tolerance"),
    [
        ("int8", "xnnpack", False, 0.0),
        ("int8", "reference", True, 0.0),
        ("int8-per-tensor", "xnnpack", True, 0.0),
        ("int16x8", "reference", False, 0.0),
        ("int16x8", "xnnpack", False, None),
        ("fp32", "xnnpack", True, 1e-5),
        ("fp16", "xnnpack", False, 1e-5),
        ("fp16", "xnnpack", True, 2e-2),
        ("int8-weights", "xnnpack", True, 2e-2),
    ],
)
def test_what_is_promised(recipe, kernels, half, tolerance):
    promise = promised(CANDIDATE, made_by(recipe), kernels, half=half)
    assert promise.tolerance == tolerance
    assert promise.reason


@pytest.mark.parametrize(
    ("format_", "kernels", "tolerance"),
    [("tflite", "xnnpack", 1 / 256), ("tflite", "reference", 0.0), ("onnx", "xnnpack", 0.0)],
)
def test_tflites_fast_softmax_may_differ_by_a_step(format_, kernels, tolerance, monkeypatch):
    monkeypatch.setattr(machines, "_has_signed_activations", lambda _path: False)
    quantized = replace(made_by("int8"), graph=classifier(Function.SOFTMAX))
    promise = promised(replace(CANDIDATE, format=format_), quantized, kernels, half=False)
    assert promise.tolerance == tolerance


def test_layers_in_float_void_the_promise():
    quantized = made_by("int8", kept_float={"conv": "--override"})
    assert promised(CANDIDATE, quantized, "xnnpack", half=False).tolerance is None


def test_a_recipe_of_the_users_own_is_what_it_is_a_variant_of():
    own = replace(CANDIDATE, precision="mine")
    assert promised(own, made_by("int8"), "xnnpack", half=False).tolerance == 0.0


def test_one_different_integer_fails():
    promise = Promise(tolerance=0.0, reason="exact")
    assert compare_machines(PLACE, HERE, HERE.copy(), promise).verdict == "pass"
    there = HERE + np.array([[0, 0], [0, 1 / 256]], np.float32)
    check = compare_machines(PLACE, HERE, there, promise)
    assert check.verdict == "fail"
    assert check.found == pytest.approx(1 / 256)
    assert "ssh://board" in check.sentence


def test_floats_are_held_to_a_share_of_the_largest_output():
    promise = Promise(tolerance=1e-5, reason="order")
    assert compare_machines(PLACE, HERE, HERE + np.float32(3.9e-5), promise).verdict == "pass"
    assert compare_machines(PLACE, HERE, HERE + np.float32(4.2e-5), promise).verdict == "fail"


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_fails(broken):
    there = HERE.copy()
    there[0, 0] = broken
    assert compare_machines(PLACE, HERE, there, Promise(tolerance=1e-5, reason="order")).verdict == "fail"


def test_where_nothing_is_promised_the_figure_is_still_told():
    check = compare_machines(PLACE, HERE, HERE + 1, Promise(tolerance=None, reason="kernels of its own"))
    assert (check.verdict, check.found, check.limit) == ("skipped", 1.0, None)


def test_float16_arithmetic_is_told_from_the_features():
    machine = Machine(system="Linux", architecture="aarch64", cpu="", features=("asimd", "asimdhp"))
    assert has_half_arithmetic(machine)
    assert not has_half_arithmetic(replace(machine, features=("asimd", "asimddp")))
