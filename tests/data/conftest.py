from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from resnet_edge.data import shipped

if TYPE_CHECKING:
    from resnet_edge.graph import Graph


@pytest.fixture(scope="package")
def fashion_mnist_graph() -> Graph:
    """The shipped model, as the converters get it."""
    from resnet_edge.graph.importing import import_keras
    from resnet_edge.models import build_model, find_model
    from resnet_edge.models.weights.load import load_weights
    from resnet_edge.passes import run_passes

    spec = find_model("resnet8")
    model = build_model(spec, input_shape=spec.input_shape_with("fashion-mnist"), classes=10)
    load_weights(model, spec, shipped.weights("resnet8-fashion-mnist"))
    return run_passes(import_keras(model)).graph
