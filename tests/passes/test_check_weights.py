from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.operators import BatchNorm
from resnet_edge.passes import run_passes
from tests.graph_builder import GraphBuilder

if TYPE_CHECKING:
    from resnet_edge.graph import Graph


def _graph() -> Graph:
    builder = GraphBuilder((6, 5, 3))
    conv = builder.conv(builder.image, 4, name="model/conv")
    return builder.classified(builder.function(builder.batch_norm(conv, name="model/norm")))


def _spoiled(node: str, role: str, position: tuple[int, ...], value: float) -> Graph:
    graph = _graph()
    values = graph.by_name[node].op.weights()[role].copy()
    values[position] = value
    op = replace(graph.by_name[node].op, **{role: values})  # type: ignore[type-var]
    return replace(graph, nodes=tuple(replace(n, op=op) if n.name == node else n for n in graph.nodes))


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value: float, fold: bool) -> None:
    with pytest.raises(ModelRejectedError) as caught:
        run_passes(_spoiled("model/conv", "weight", (2, 0, 1, 3), value), fold=fold)
    assert caught.value.where == "model/conv, weight (3, 3, 3, 4)"
    assert caught.value.found == f"{value} at (2, 0, 1, 3); 1 of 108 values"


@pytest.mark.parametrize("role", ["gamma", "beta", "mean", "variance"])
def test_not_finite_in_a_batch_norm(role: str) -> None:
    with pytest.raises(ModelRejectedError) as caught:
        run_passes(_spoiled("model/norm", role, (1,), np.nan))
    assert caught.value.where == f"model/norm, {role} (4,)"


def test_negative_variance() -> None:
    with pytest.raises(ModelRejectedError, match="a variance is negative") as caught:
        run_passes(_spoiled("model/norm", "variance", (2,), -0.5))
    assert caught.value.where == "model/norm, variance (4,)"
    assert caught.value.found == "-0.5 at (2,); 1 of 4 values"


@pytest.mark.parametrize(("variance", "epsilon", "gamma"), [(0.0, 0.0, 1.0), (1e-30, 0.0, 1e30)])
def test_scale_beyond_float32(variance: float, epsilon: float, gamma: float) -> None:
    graph = _spoiled("model/norm", "variance", (3,), variance)
    values = np.full(4, gamma, np.float32)
    norm = graph.by_name["model/norm"].op
    assert isinstance(norm, BatchNorm)
    op = replace(norm, epsilon=epsilon, gamma=values)
    nodes = tuple(replace(n, op=op) if n.name == "model/norm" else n for n in graph.nodes)
    with pytest.raises(ModelRejectedError, match="leaves the range of float32"):
        run_passes(replace(graph, nodes=nodes))


def test_usable_weights_pass() -> None:
    run_passes(_graph())
