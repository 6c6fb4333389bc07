"""Nodes as graphs and files of their own, and the tensors of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.graph.operators import Add, Concat
from resnet_edge.passes import run_passes
from resnet_edge.quantization.integer import run_integer_nodes
from resnet_edge.verification.formats import OnnxForm, TFLiteForm, why_not_exposed
from resnet_edge.verification.one_operator import one_operator, write_operator
from resnet_edge.verification.tensors import run_exposed
from tests.graph_builder import GraphBuilder, images
from tests.verification.artifacts import network, quantized_as, write

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.formats import FileForm


def form(quantized: Quantized, format_: str) -> FileForm:
    return TFLiteForm(quantized, "reference") if format_ == "tflite" else OnnxForm(quantized, "uint8")


def joined(op: Add | Concat, *, same: bool = False, name: str = "joined") -> Graph:
    builder = GraphBuilder((4, 4, 2))
    parts = [builder.conv(builder.image, 2, (1, 1)) for _ in range(2)]
    inputs = [parts[0], parts[0]] if same else [*parts, *parts[:1]] if isinstance(op, Concat) else parts
    return run_passes(builder.classified(builder.add(op, *inputs, name=name))).graph


def test_inputs_are_told_apart_by_number() -> None:
    quantized = one_operator(quantized_as(joined(Add()), "int8"), "joined")
    assert quantized.graph.inputs == ("image", "image_2")
    assert quantized.graph.output == "joined"
    assert list(quantized.spec.tensors) == ["image", "image_2", "joined"]
    assert quantized.spec.io == "int8"


def test_a_tensor_that_is_taken_twice_is_one_input() -> None:
    quantized = one_operator(quantized_as(joined(Add(), same=True), "int8"), "joined")
    assert quantized.graph.inputs == ("image",)
    assert quantized.graph.by_name["joined"].inputs == ("image", "image")


def test_a_node_may_be_called_like_an_input() -> None:
    quantized = one_operator(quantized_as(joined(Add(), name="image_2"), "int8"), "image_2")
    assert quantized.graph.inputs == ("image", "image_3")


@pytest.mark.parametrize(("recipe", "io"), [("fp32", "float32"), ("int16x8", "float32"), ("int8", "uint8")])
def test_bytes_are_taken_as_such(recipe: str, io: str) -> None:
    quantized = quantized_as(network(), recipe)
    alone = one_operator(quantized, "two", byte="uint8")
    assert alone.spec.io == io
    assert alone.constants.keys() == {key for key in quantized.constants if key.startswith("two/")}


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
@pytest.mark.parametrize("recipe", ["fp32", "int8"])
@pytest.mark.parametrize("op", [Add(), Concat()], ids=["add", "concat"])
def test_operators_of_several_tensors_compute_what_they_do_in_the_graph(
    op: Add | Concat, recipe: str, format_: str, tmp_path: Path
) -> None:
    quantized = quantized_as(joined(op), recipe)
    tensors = {node.name: tensor for node, tensor in run_integer_nodes(quantized, images(quantized.graph))}
    inputs = [tensors[name] for name in quantized.graph.by_name["joined"].inputs]
    file = write_operator(form(quantized, format_), "joined", tmp_path / "operator")
    run = file.open()
    for image in range(2):
        found = file.form.in_graph("joined", run(file.stored_inputs(inputs, image)))
        assert found.dtype == tensors["joined"].dtype
        # One step for all but halves, one rounding for a sum of floats.
        np.testing.assert_allclose(
            found, tensors["joined"][image : image + 1], atol=1 if recipe == "int8" else 1e-6
        )


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_every_tensor_of_a_run_is_there(format_: str, tmp_path: Path) -> None:
    quantized = quantized_as(network(), "int8")
    inputs = images(quantized.graph, 3, seed=1)
    path = write(quantized, tmp_path, format_)
    run = run_exposed(path, form(quantized, format_), inputs)
    assert run.difference == 0.0
    assert run.outputs.shape == (3, quantized.graph.classes)
    for node, expected in run_integer_nodes(quantized, inputs, kernels="single"):
        found = run.tensors[node.name]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        # Steps of single operators add up on the way; another tensor's values would be far off.
        assert np.abs(found.astype(int) - expected).max() <= 3, node.name


def test_why_formats_are_not_compared() -> None:
    assert why_not_exposed("tflite") == why_not_exposed("onnx") == ""
    assert "TensorFlow" in why_not_exposed("savedmodel")
    assert "'coreml'" in why_not_exposed("coreml")
