from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings

from resnet_edge.errors import DataRejectedError, ModelRejectedError
from resnet_edge.graph.execution import execute_all
from resnet_edge.graph.operators import Conv2D
from resnet_edge.passes import run_passes
from resnet_edge.quantization.calibration import calibrate
from resnet_edge.quantization.statistics import Statistics, statistics_key
from tests.graph_builder import GraphBuilder
from tests.graphs import OPERATOR_GRAPHS, images, residual_graphs

if TYPE_CHECKING:
    from resnet_edge.graph import Graph, Node


def small_graph() -> Graph:
    builder = GraphBuilder((8, 8, 3))
    return builder.classified(builder.conv(builder.image, 4))


def first_convolution(graph: Graph) -> tuple[int, Node, Conv2D]:
    """Its place in the graph, itself, and its operator."""
    return next(
        (place, node, node.op) for place, node in enumerate(graph.nodes) if isinstance(node.op, Conv2D)
    )


def changed(graph: Graph, **attributes: Any) -> Graph:
    """The graph with other attributes of its first convolution."""
    place, node, op = first_convolution(graph)
    other = replace(node, op=replace(op, **attributes))
    return replace(graph, nodes=(*graph.nodes[:place], other, *graph.nodes[place + 1 :]))


def assert_observed(graph: Graph, statistics: Statistics, inputs: np.ndarray) -> None:
    tensors = execute_all(graph, inputs)
    assert statistics.images == len(inputs)
    assert list(statistics.ranges) == list(statistics.observed) == list(tensors)
    for name, tensor in tensors.items():
        # ONNX Runtime adds up in another order than NumPy: float32 rounding, relative to the tensor's size.
        close = 1e-5 * max(1, float(np.abs(tensor).max()))
        extremes = (tensor.min(), tensor.max())
        np.testing.assert_allclose(statistics.observed[name], extremes, rtol=0, atol=close)
        means = tensor.reshape(-1, tensor.shape[-1]).mean(axis=0)
        np.testing.assert_allclose(statistics.channel_means[name], means, rtol=0, atol=close)
        low, high = statistics.ranges[name]
        assert low <= 0 <= high


@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_every_operator_is_observed(name):
    graph = OPERATOR_GRAPHS[name]
    inputs = images(graph, 3)
    assert_observed(graph, calibrate(graph, [inputs], observer="minmax"), inputs)


@settings(max_examples=10, deadline=None)
@given(graph=residual_graphs())
def test_whole_networks_are_observed(graph):
    folded = run_passes(graph).graph
    inputs = images(folded, 3)
    assert_observed(folded, calibrate(folded, [inputs], observer="mse"), inputs)


def test_batches_of_any_size_give_the_same_ranges():
    graph = small_graph()
    inputs = images(graph, 7)
    results = [
        calibrate(graph, np.split(inputs, list(range(size, 7, size))), observer="mse") for size in (1, 2, 7)
    ]
    for result in results[1:]:
        assert result.images == 7
        for name, limits in results[0].ranges.items():
            # The runtime's own rounding differs with the batch, and can move a value to the next bin.
            assert result.ranges[name] == pytest.approx(limits, rel=0.01)


def test_no_range_is_wider_than_what_was_seen():
    graph = small_graph()
    statistics = calibrate(graph, [images(graph, 5)], observer="entropy")
    for name, (low, high) in statistics.ranges.items():
        least, most = statistics.observed[name]
        assert min(least, 0) <= low <= 0 <= high <= max(most, 0)


def test_progress_counts_images():
    graph = small_graph()
    seen: list[int] = []
    calibrate(graph, iter([images(graph, 3), images(graph, 2)]), progress=seen.append)
    assert seen == [3, 5]


def test_no_images_are_refused():
    with pytest.raises(DataRejectedError, match="no calibration images"):
        calibrate(small_graph(), [])


def test_the_node_and_image_with_an_overflow_are_named():
    graph = small_graph()
    _, node, op = first_convolution(graph)
    inputs = images(graph, 3) * np.array([1, 1, 1e10], np.float32)[:, None, None, None]
    with pytest.raises(DataRejectedError) as caught:
        calibrate(changed(graph, weight=op.weight * np.float32(1e30)), [inputs[:1], inputs[1:]])
    assert node.name in caught.value.where
    assert "image 2" in caught.value.where


MEMORY = """
import resource, sys
import numpy as np
from resnet_edge.quantization.calibration import calibrate
from tests.graph_builder import GraphBuilder

builder = GraphBuilder((32, 32, 3))
graph = builder.classified(builder.conv(builder.conv(builder.image, 16), 16))
rng = np.random.default_rng(0)
batches = (rng.normal(size=(20, 32, 32, 3)).astype(np.float32) for _ in range(int(sys.argv[1]) // 20))
calibrate(graph, batches, observer="mse")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_images():
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, count], check=True, capture_output=True, text=True
            ).stdout
        )
        for count in ("100", "1000")
    )
    # 1,000 images have tensors of 150 MB here, and inputs of 12 MB; runs differ by some MB in any case.
    assert many - few < 16 * 1024


def statistics() -> Statistics:
    graph = small_graph()
    return calibrate(graph, [images(graph, 4)])


def test_statistics_survive_a_file_bit_by_bit(tmp_path):
    kept = statistics()
    kept.save(tmp_path / "a.npz")
    kept.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = Statistics.load(tmp_path / "a.npz")
    assert (found.ranges, found.observed, found.images) == (kept.ranges, kept.observed, kept.images)
    assert list(found.channel_means) == list(kept.channel_means)
    for name, means in kept.channel_means.items():
        np.testing.assert_array_equal(found.channel_means[name], means)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 no archive"])
def test_a_damaged_file_of_statistics_is_refused(tmp_path, content):
    path = tmp_path / "statistics.npz"
    path.write_bytes(content)
    with pytest.raises(ModelRejectedError, match="calibrates again"):
        Statistics.load(path)


def test_statistics_of_another_schema_are_refused(tmp_path):
    path = tmp_path / "statistics.npz"
    np.savez(path, schema=0, names=np.array([], np.str_))
    with pytest.raises(ModelRejectedError, match="schema 0"):
        Statistics.load(path)


def test_the_key_changes_with_all_that_the_numbers_depend_on():
    graph = small_graph()
    weight = first_convolution(graph)[2].weight.copy()
    weight[0, 0, 0, 0] = np.nextafter(weight[0, 0, 0, 0], np.float32(9))
    keys = [
        statistics_key(graph, "data", "mse"),
        statistics_key(graph, "data", "minmax"),
        statistics_key(graph, "other", "mse"),
        statistics_key(changed(graph, weight=weight), "data", "mse"),
        statistics_key(changed(graph, activation="relu6"), "data", "mse"),
    ]
    assert len(set(keys)) == len(keys)
    assert statistics_key(small_graph(), "data", "mse") == keys[0]
