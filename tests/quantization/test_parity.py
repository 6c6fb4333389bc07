"""How many images the closing run sees, and what is said where they are few."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_edge.data.datasets import open_dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.graph.execution import execute
from resnet_edge.quantization import parity
from resnet_edge.quantization.parity import FEWEST_IMAGES, Judge, shortage
from tests.graph_builder import GraphBuilder

CONTRACT = Preprocessing.parse("unit", 3, (8, 8))


def dataset(tmp_path, count):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    return open_dataset(str(tmp_path / "images.npz"), CONTRACT)


def small_graph():
    builder = GraphBuilder((8, 8, 3))
    return builder.classified(builder.conv(builder.image, 4))


@pytest.mark.parametrize(
    ("count", "source", "first", "last"),
    [(90, "held back", 20, 60), (30, "held back", 20, 30), (20, "calibration", 0, 20)],
)
def test_it_sees_images_behind_those_of_the_calibration_if_there_are_any(
    tmp_path, count, source, first, last
):
    graph, images = small_graph(), dataset(tmp_path, count)
    judge = Judge.over(graph, images, 20, 40, CONTRACT)
    (expected,) = images.batches(first, last, count)
    assert judge.source == source
    np.testing.assert_array_equal(judge.inputs, expected)
    # ONNX Runtime adds up in another order than NumPy, and logits are of the order of 1.
    np.testing.assert_allclose(judge.outputs, execute(graph, expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("macs", "images"), [(12.5, 12), (1, FEWEST_IMAGES)])
def test_a_large_network_runs_on_fewer_images(tmp_path, monkeypatch, macs, images):
    graph = small_graph()
    monkeypatch.setattr(parity, "CLOSING_MACS", int(macs * graph.macs))
    assert len(Judge.over(graph, dataset(tmp_path, 90), 20, 40, CONTRACT).inputs) == images


def test_few_images_are_told(tmp_path):
    images = dataset(tmp_path, 160)
    assert shortage(images, 60) == []
    assert "only 99 images are left behind the 61" in shortage(images, 61)[0]
    assert "no images are left" in shortage(images, 160)[0]
