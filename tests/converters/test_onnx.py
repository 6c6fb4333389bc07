from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resnet_edge.converters import ConversionSettings
from resnet_edge.errors import ConversionFailedError, UsageError
from resnet_edge.graph.execution import execute
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Conv2D,
    Function,
    MaxPool2D,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Subtract,
)
from resnet_edge_converters.onnx import OnnxConverter
from resnet_edge_converters.onnx_opsets import NEWEST, OLDEST
from tests.graph_builder import GraphBuilder, images
from tests.graphs import OPERATOR_GRAPHS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph

TOLERANCE = 1e-5
"""Of max(1, max|reference|): both sides sum a few hundred float32 products, in different orders."""

TRANSPOSES = {
    "reshape_map_to_map": 2,
    "reshape_vector_to_map": 1,
    "reshape_to_tokens_permute": 2,
    "permute_height_width": 1,
    "permute_to_nchw": 1,
    "permute_rotate": 1,
}
"""The graphs that cannot do without in NCHW: they permute, or reshape a map into another."""

NEWEST_HERE = min(NEWEST, onnx.defs.onnx_opset_version())


def converted(graph: Graph, folder: Path, **settings: object) -> Path:
    path = folder / "model.onnx"
    path.unlink(missing_ok=True)
    OnnxConverter().convert(graph, path, ConversionSettings(**settings))  # type: ignore[arg-type]
    return path


def run(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with OnnxConverter().open(path) as engine:
        return engine.run(inputs)


def assert_computes(path: Path, graph: Graph) -> None:
    inputs = images(graph, 3)
    expected = execute(graph, inputs)
    np.testing.assert_allclose(
        run(path, inputs), expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max())
    )


def initializers(path: Path) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_file_is_valid_and_has_no_needless_transpose(name: str, layout: str, tmp_path: Path) -> None:
    path = converted(OPERATOR_GRAPHS[name], tmp_path, onnx_layout=layout, batch=None)
    onnx.checker.check_model(path, full_check=True)
    assert operators(path)["Transpose"] == TRANSPOSES.get(name, 0) + (layout == "nhwc")
    assert_computes(path, OPERATOR_GRAPHS[name])


@pytest.mark.parametrize("opset", [OLDEST, 13, 18, 21, NEWEST_HERE])
@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_every_operator_in_older_and_newer_operator_sets(name: str, opset: int, tmp_path: Path) -> None:
    path = converted(OPERATOR_GRAPHS[name], tmp_path, opset=opset, batch=3)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert_computes(path, OPERATOR_GRAPHS[name])


@pytest.mark.parametrize(("opset", "ir"), [(11, 6), (13, 7), (17, 8), (19, 9), (21, 10)])
def test_ir_version_is_the_oldest_that_holds_the_operator_set(opset: int, ir: int, tmp_path: Path) -> None:
    assert onnx.load(converted(OPERATOR_GRAPHS["add"], tmp_path, opset=opset)).ir_version == ir


@pytest.mark.parametrize("opset", [OLDEST - 1, NEWEST + 1])
def test_unsupported_operator_set_names_the_range(opset: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{OLDEST} to {NEWEST_HERE}"):
        converted(OPERATOR_GRAPHS["add"], tmp_path, opset=opset)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("batch", "dim"), [(1, 1), (4, 4), (None, "N")])
def test_signature(batch: int | None, dim: int | str, tmp_path: Path) -> None:
    graph = OPERATOR_GRAPHS["residual_block"]

    def signature(**settings: object) -> list[tuple[str, list[int | str]]]:
        model = onnx.load(converted(graph, tmp_path, batch=batch, **settings)).graph
        return [
            (
                value.name,
                [extent.dim_param or extent.dim_value for extent in value.type.tensor_type.shape.dim],
            )
            for value in (*model.input, *model.output)
        ]

    output = ("probabilities", [dim, graph.classes])
    assert signature() == [("image", [dim, 3, 9, 7]), output]
    assert signature(onnx_layout="nhwc") == [("image", [dim, 9, 7, 3]), output]
    # Open dimensions must stay open up to the output, under the same name.
    assert_computes(converted(graph, tmp_path, batch=batch), graph)


@pytest.mark.parametrize("name", ["residual_block", "squeeze_and_excitation", "swish_of_map"])
def test_every_tensor_has_a_shape_in_the_file(name: str, tmp_path: Path) -> None:
    model = onnx.load(converted(OPERATOR_GRAPHS[name], tmp_path)).graph
    known = {value.name for value in (*model.value_info, *model.output)}
    assert known == {output for node in model.node for output in node.output}


def test_nodes_tensors_and_constants_are_named_after_the_graph(tmp_path: Path) -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    model = onnx.load(converted(graph, tmp_path)).graph
    assert [node.name for node in model.node][:3] == ["stem", "stem/relu", "stage1/block.0/conv-1"]
    tensors = {output for node in model.node for output in node.output}
    assert {graph.tensor_name(node.name) for node in graph.nodes[1:]} <= tensors
    assert {"stem/weight", "stem/bias", "stage1/block.0/conv-1/weight"} <= {t.name for t in model.initializer}


def test_a_name_that_a_constant_would_take_stays_the_nodes(tmp_path: Path) -> None:
    builder = GraphBuilder((4, 4, 2))
    x = builder.conv(builder.image, 3, name="conv")
    x = builder.conv(x, 3, name="conv/weight")
    x = builder.conv(x, 3, name="conv/conv")
    graph = builder.classified(x)
    path = converted(graph, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    assert {"conv/weight_2", "conv/weight/weight"} <= set(initializers(path))
    assert_computes(path, graph)


def test_bias_of_zeros_is_left_out(tmp_path: Path) -> None:
    path = converted(OPERATOR_GRAPHS["conv_without_bias"], tmp_path)
    assert {name for name in initializers(path) if name.endswith("/bias")} == {"head/bias"}


def test_batch_norm_is_kept_as_such(tmp_path: Path) -> None:
    assert operators(converted(OPERATOR_GRAPHS["batch_norm"], tmp_path))["BatchNormalization"] == 1


def test_metadata_layout_and_producer(tmp_path: Path) -> None:
    metadata = {"preprocessing": '{"scale": 1}', "labels": "Katze\nHündin"}
    model = onnx.load(converted(OPERATOR_GRAPHS["add"], tmp_path, metadata=metadata))
    assert {entry.key: entry.value for entry in model.metadata_props} == {**metadata, "layout": "nchw"}
    assert (model.producer_name, bool(model.producer_version)) == ("resnet-edge", True)


def flattened(tail: str) -> tuple[Graph, NDArray[np.float32]]:
    """A 2x3x4 map, flattened, through ``tail``, to Dense; and Dense's weight."""
    builder = GraphBuilder((4, 6, 3))
    x = builder.add(AveragePool2D(size=(2, 2), strides=(2, 2)), builder.conv(builder.image, 4))
    x = builder.add(Reshape(shape=(24,)), x)
    match tail:
        case "relu":
            x = builder.function(x)
        case "prelu, batch norm":
            x = builder.batch_norm(builder.add(PRelu(alpha=builder.normal(24)), x))
        case "softmax":
            x = builder.function(x, Function.SOFTMAX)
        case "two consumers":
            x = builder.add(Add(), builder.dense(x, 24), builder.dense(x, 24))
        case "add":
            x = builder.add(Add(), x, builder.function(x, Function.TANH))
    graph = builder.graph(builder.dense(x, 10, name="head"))
    return graph, graph.by_name["head"].op.weights()["weight"]


@pytest.mark.parametrize(
    ("end", "strides", "operator"),
    [
        ((7, 8, 3), (2, 3, 1), "MaxPool"),  # the last pixel that is cut off would not be taken either
        ((8, 8, 3), (2, 1, 1), "MaxPool"),
        ((6, 8, 3), (2, 2, 1), "Slice"),
        ((8, 8, 3), (2, 2, 2), "Slice"),
    ],
)
def test_every_other_pixel_is_picked_by_a_pool(
    end: tuple[int, int, int], strides: tuple[int, int, int], operator: str, tmp_path: Path
) -> None:
    builder = GraphBuilder((8, 8, 3))
    graph = builder.classified(builder.add(Slice(begin=(0, 0, 0), end=end, strides=strides), builder.image))
    path = converted(graph, tmp_path)
    assert operators(path) == {operator: 1, "Conv": 1, "Flatten": 1}
    assert_computes(path, graph)


@pytest.mark.parametrize("border", [Padding(), Padding(top=1, right=2)])
def test_zeros_in_front_of_a_max_pool_stay_zeros(border: Padding, tmp_path: Path) -> None:
    builder = GraphBuilder((6, 6, 3))
    positive = builder.function(builder.image)
    # Nothing above zero, so that a zero from the border wins.
    x = builder.add(Subtract(), positive, builder.add(Add(), positive, positive))
    x = builder.add(Pad(padding=Padding(top=2, left=1)), x)
    x = builder.add(MaxPool2D(size=(3, 3), strides=(2, 2), padding=border), x)
    graph = builder.classified(x)
    path = converted(graph, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    assert_computes(path, graph)


@pytest.mark.parametrize("tail", ["", "relu", "prelu, batch norm", "softmax"])
def test_dense_behind_a_flattened_map_gets_its_rows_permuted(tail: str, tmp_path: Path) -> None:
    graph, weight = flattened(tail)
    path = converted(graph, tmp_path)
    assert operators(path)["Transpose"] == 0
    rows = [(h * 3 + w) * 4 + c for c in range(4) for h in range(2) for w in range(3)]
    np.testing.assert_array_equal(initializers(path)["head/weight"], weight[rows].T)
    assert_computes(path, graph)


def test_every_dense_behind_a_flattened_map_gets_its_rows_permuted(tmp_path: Path) -> None:
    graph, _ = flattened("two consumers")
    path = converted(graph, tmp_path)
    assert operators(path)["Transpose"] == 0
    assert_computes(path, graph)


def test_a_flattened_map_with_another_consumer_is_transposed(tmp_path: Path) -> None:
    graph, weight = flattened("add")
    path = converted(graph, tmp_path)
    assert operators(path)["Transpose"] == 1
    np.testing.assert_array_equal(initializers(path)["head/weight"], weight.T)
    assert_computes(path, graph)


def test_a_flattened_map_that_is_the_output_is_in_the_graphs_order(tmp_path: Path) -> None:
    builder = GraphBuilder((2, 3, 4))
    x = builder.function(builder.add(Reshape(shape=(24,)), builder.conv(builder.image, 4)), Function.TANH)
    graph = builder.graph(x)
    path = converted(graph, tmp_path)
    assert operators(path)["Transpose"] == 1
    assert_computes(path, graph)


@pytest.mark.parametrize("name", ["residual_block", "upsample_bilinear", "relu6_of_map"])
def test_streamed_bytes_are_those_of_protobuf(name: str, tmp_path: Path) -> None:
    path = converted(OPERATOR_GRAPHS[name], tmp_path, opset=OLDEST, metadata={"labels": "a\nb"})
    assert onnx.load(path).SerializeToString(deterministic=True) == path.read_bytes()


def test_writing_needs_the_memory_of_one_tensor(tmp_path: Path) -> None:
    builder = GraphBuilder((1, 1, 1024))
    x = builder.image
    for _ in range(3):
        x = builder.conv(x, 1024, (1, 1))  # 4 MiB of weights each
    graph = builder.graph(builder.add(Reshape(shape=(1024,)), x))
    tracemalloc.start()
    converted(graph, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One tensor in ONNX's order of dimensions at a time, and some kilobytes of messages.
    assert peak < 1.5 * 4 * 2**20


def test_more_than_a_protobuf_message_can_hold_is_refused(tmp_path: Path) -> None:
    # A view of one number with strides of zero: 4 GiB on paper.
    weight = np.broadcast_to(np.float32(0.5), (1, 1, 2**15, 2**15))
    builder = GraphBuilder((1, 1, 2**15))
    x = builder.add(Conv2D(weight=weight, bias=np.zeros(2**15, np.float32)), builder.image)
    with pytest.raises(ConversionFailedError, match="too large"):
        converted(builder.graph(builder.add(Reshape(shape=(2**15,)), x)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        OnnxConverter().convert(OPERATOR_GRAPHS["add"], path, ConversionSettings())
    assert path.read_text() == "precious"


def test_an_operator_without_a_form_is_refused_with_its_layer(tmp_path: Path) -> None:
    builder = GraphBuilder((4, 4, 3))
    x = builder.affine(builder.image, name="rescaling")  # lowered by a pass, never seen by converters
    with pytest.raises(ConversionFailedError, match="Affine cannot be written as ONNX") as caught:
        converted(builder.classified(x), tmp_path)
    assert caught.value.where == "rescaling"
    assert not list(tmp_path.iterdir())


def test_runtime_fuses_activations_into_convolutions(tmp_path: Path) -> None:
    import onnxruntime

    builder = GraphBuilder((8, 8, 3))
    x = builder.conv(builder.image, 4, activation=Activation.RELU)
    x = builder.conv(x, 4, padding=Padding(), activation=Activation.RELU6)
    path = converted(builder.classified(x), tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    # The next level's own layout hides the activations from view.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert operators(tmp_path / "optimized.onnx") == {"FusedConv": 2, "Conv": 1, "Flatten": 1}
