"""The integer reference as a whole: what it takes and gives, and what it costs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.graph.execution import execute
from resnet_edge.graph.operators import Conv2D, MaxPool2D, Multiply, Subtract
from resnet_edge.passes import run_passes
from resnet_edge.quantization.integer import IMAGES_AT_A_TIME, run_integer, run_integer_nodes, run_operator
from resnet_edge.quantization.integer_operators import Setting, dequantize, run_integer_operator
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import load_recipes
from resnet_edge.quantization.requantization import ROUNDING
from resnet_edge.quantization.statistics import Statistics
from tests.graph_builder import GraphBuilder, images
from tests.graphs import OPERATOR_GRAPHS
from tests.quantization.integer_models import Runtime, calibrated
from tests.shared_data import shared_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.spec import Quantized


@pytest.fixture(scope="module")
def block() -> Graph:
    return run_passes(OPERATOR_GRAPHS["residual_block"]).graph


@pytest.fixture(scope="module")
def quantized(block: Graph) -> Quantized:
    return calibrated(block, "int8", images(block, 8))


def with_float_nodes(quantized: Quantized, *names: str) -> Quantized:
    kept = {name: quant for name, quant in quantized.spec.tensors.items() if name not in names}
    return replace(quantized, spec=replace(quantized.spec, tensors=kept))


def test_output_is_the_dequantized_last_tensor(quantized: Quantized) -> None:
    batch = images(quantized.graph, 3)
    tensors = {node.name: tensor for node, tensor in run_integer_nodes(quantized, batch)}
    assert list(tensors) == [node.name for node in quantized.graph.nodes]
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.int8)}
    output = quantized.graph.output
    expected = dequantize(tensors[output], quantized.spec.tensors[output])
    np.testing.assert_array_equal(run_integer(quantized, batch), expected)


@pytest.mark.parametrize("kernels", ["single", "tflite-reference"])
@pytest.mark.parametrize(("recipe", "tolerance"), [("int8", 0.05), ("int16x8", 0.02)])
def test_it_computes_about_what_the_float_graph_does(
    block: Graph, recipe: str, tolerance: float, kernels: str
) -> None:
    batch = images(block, 8)
    actual = run_integer(calibrated(block, recipe, batch), batch, kernels=kernels)  # type: ignore[arg-type]
    # Probabilities; weights of 8 bits leave errors of about a hundredth, activations of 8 bits twice that.
    np.testing.assert_allclose(actual, execute(block, batch), atol=tolerance)


def test_batches_are_images_one_by_one(quantized: Quantized) -> None:
    batch = images(quantized.graph, IMAGES_AT_A_TIME + 3)
    one_by_one = np.concatenate([run_integer(quantized, batch[i : i + 1]) for i in range(len(batch))])
    np.testing.assert_array_equal(run_integer(quantized, batch), one_by_one)


@pytest.mark.parametrize("shape", [(2, 9, 7, 4), (2, 7, 9, 3), (0, 9, 7, 3)])
def test_wrong_images_are_refused(quantized: Quantized, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="takes"):
        run_integer(quantized, np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "kept", [("pool",), ("stage1/block.0/conv-1",), ("softmax",), ("image",), ("dense", "softmax")]
)
def test_float_nodes_stand_between_conversions(quantized: Quantized, kept: tuple[str, ...]) -> None:
    batch = images(quantized.graph, 4)
    mixed = with_float_nodes(quantized, *kept)
    tensors = {node.name: tensor for node, tensor in run_integer_nodes(mixed, batch)}
    for name, tensor in tensors.items():
        assert tensor.dtype == (np.float32 if name in kept else np.int8)
    # What is left out is one rounding, or a few: as close to the float graph as all-integer execution.
    np.testing.assert_allclose(run_integer(mixed, batch), execute(quantized.graph, batch), atol=0.05)


def test_quantized_weights_in_float_arithmetic(block: Graph) -> None:
    batch = images(block, 4)
    stored = quantize_graph(block, load_recipes()["int8-weights"])
    actual = run_integer(stored, batch)
    assert (actual != execute(block, batch)).any()
    # The error of 8-bit weights alone.
    np.testing.assert_allclose(actual, execute(block, batch), atol=0.02)


@pytest.mark.parametrize("name", ["depthwise_multiplier2", "depthwise_3x3_same"])
def test_depthwise_weights_in_float_arithmetic(name: str) -> None:
    graph = OPERATOR_GRAPHS[name]
    batch = images(graph, 4)
    actual = run_integer(quantize_graph(graph, load_recipes()["int8-weights"]), batch)
    # A channel under another's scale would be off by far more than 127ths of weights near 1.
    np.testing.assert_allclose(actual, execute(graph, batch), atol=0.1)


def test_half_precision_constants_are_used(block: Graph) -> None:
    batch = images(block, 4)
    ranges = {node.name: (-1.0, 1.0) for node in block.nodes}
    seen = Statistics(ranges=ranges, observed=ranges, images=1)
    actual = run_integer(quantize_graph(block, load_recipes()["fp16"], seen), batch)
    assert (actual != execute(block, batch)).any()
    # A float16 has 11 bits.
    np.testing.assert_allclose(actual, execute(block, batch), atol=2e-3)


def test_operators_that_move_integers_keep_their_scale(quantized: Quantized) -> None:
    first, second = (quantized.spec.tensors[name] for name in ("image", "stem"))
    setting = Setting(inputs=(first,), output=second, kernels="single")
    with pytest.raises(ValueError, match="MaxPool2D cannot change the scale"):
        run_integer_operator(MaxPool2D(size=(2, 2), strides=(2, 2)), setting, np.zeros((1, 4, 4, 1), np.int8))


def test_operators_of_tier_2_have_no_integer_form(quantized: Quantized) -> None:
    quant = quantized.spec.tensors["image"]
    setting = Setting(inputs=(quant, quant), output=quant, kernels="single")
    zeros = np.zeros((1, 4), np.int8)
    with pytest.raises(NotImplementedError, match="Subtract"):
        run_integer_operator(Subtract(), setting, zeros, zeros)


def test_sums_beyond_float32_are_exact() -> None:
    """A sum above 2 ** 24, whose last bit decides: float32 could not hold it."""
    builder = GraphBuilder((1, 1, 1024))
    graph = builder.classified(builder.image)
    quantized = calibrated(graph, "int8", np.ones((1, 1, 1, 1024), np.float32))
    head = graph.by_name["head"]
    assert isinstance(head.op, Conv2D)
    weight = np.full(head.op.weight.shape, 127, np.int8)
    weight[..., 0, :] = 1
    image, output = quantized.spec.tensors["image"], quantized.spec.tensors["head"]
    scales = np.full(head.op.weight.shape[-1], 2 * output.scale / image.scale, np.float32)
    x = np.full((1, 1, 1, 1024), 127, np.int8)
    products = int(((x.astype(int) - image.zero_point)[0, 0, 0] @ weight.astype(int)[0, 0])[0])
    assert products > 2**24
    bias = np.full(scales.shape, 3 - products, np.int32)
    spec = replace(
        quantized.spec,
        constants={
            **quantized.spec.constants,
            "head/weight": replace(quantized.spec.constants["head/weight"], scales=tuple(scales.tolist())),
        },
    )
    exact = replace(quantized, spec=spec, constants={"head/weight": weight, "head/bias": bias})
    result = run_operator(exact, head, [x])
    np.testing.assert_array_equal(result, np.clip(6 + output.zero_point, -128, 127))


def test_every_operator_that_rounds_is_in_every_row() -> None:
    rows = list(ROUNDING.values())
    assert len(rows) == 4
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}
    assert Multiply in rows[0]


@pytest.fixture(scope="module")
def cifar() -> NDArray[np.float32]:
    with np.load(shared_file("cifar10_test500.npz")) as data:
        return np.asarray(data["images"], np.float32)


@pytest.fixture(scope="module")
def resnet20(cifar: NDArray[np.float32]) -> Quantized:
    from resnet_edge.graph.importing import import_keras
    from resnet_edge.models.build import build_model
    from resnet_edge.models.registry import find_model

    graph = run_passes(import_keras(build_model(find_model("resnet20"), seed=0))).graph
    return calibrated(graph, "int8", cifar[:16] / np.float32(255))


def test_resnet20_equals_the_reference_kernels(
    resnet20: Quantized, cifar: NDArray[np.float32], tmp_path: Path
) -> None:
    image = cifar[:1] / np.float32(255)
    live = Runtime(resnet20, tmp_path / "resnet20.tflite").integers(image, reference=True)
    for node, tensor in run_integer_nodes(resnet20, image, kernels="tflite-reference"):
        np.testing.assert_array_equal(tensor, live[node.name], err_msg=node.name)


def test_resnet20_is_fast_enough_to_evaluate(resnet20: Quantized, cifar: NDArray[np.float32]) -> None:
    start = time.perf_counter()
    run_integer(resnet20, cifar[:100])
    # 0.8 s on two idle cores; ten times that on a busy machine is still no minute for 500 images.
    assert time.perf_counter() - start < 8
