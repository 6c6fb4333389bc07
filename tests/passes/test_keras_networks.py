"""Counts that others have made of keras.applications' networks, and equality at their real depth."""

from __future__ import annotations

import collections

import keras
import pytest

from resnet_edge.graph.importing import import_keras
from resnet_edge.passes import run_passes
from tests.models.randomized import randomize
from tests.passes.comparison import difference, kinds

# What the project allows between Keras and anything made of it; 5e-7 was seen here.
TOLERANCE = 1e-4


@pytest.mark.parametrize(
    ("name", "folded", "operators"),
    [
        ("ResNet50", 53, {"Conv2D": 53, "Add": 16, "MaxPool2D": 1, "GlobalAveragePool": 1, "Dense": 1}),
        (
            "ResNet50V2",
            32,
            {"Conv2D": 53, "Add": 16, "MaxPool2D": 1, "GlobalAveragePool": 1, "Dense": 1}
            # The stem's pool pads values of both signs; three shortcuts pick every other pixel.
            | {"DepthwiseConv2D": 17, "Pad": 1, "Slice": 3},
        ),
    ],
)
def test_counts(name: str, folded: int, operators: dict[str, int]) -> None:
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(70, 99, 3), classes=20, classifier_activation=None
    )
    randomize(model)
    graph = import_keras(model)
    norms = sum(kind == "BatchNorm" for kind in kinds(graph).values())
    result = run_passes(graph)
    report = result.report("fold_batchnorm")
    assert report is not None
    assert len(report.changes) == folded
    assert len(report.kept) == norms - folded
    assert collections.Counter(kinds(result.graph).values()) == operators | {"Input": 1}
    assert difference(graph, result.graph) <= TOLERANCE
