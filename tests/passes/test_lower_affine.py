from __future__ import annotations

import pytest

from resnet_edge.graph.operators import Activation, DepthwiseConv2D, GlobalAveragePool, Permute, Reshape
from resnet_edge.passes import run_passes
from resnet_edge.passes.lower_affine import lower_affine
from tests.graph_builder import GraphBuilder
from tests.passes.comparison import difference, kinds

# scale * x + offset in another order of operations than (x - mean) * scale + beta.
TOLERANCE = 2e-6


@pytest.mark.parametrize("batch_norms", [True, False])
def test_maps(batch_norms: bool) -> None:
    builder = GraphBuilder((6, 5, 4))
    norm = builder.batch_norm(builder.function(builder.affine(builder.image, name="affine")), name="norm")
    graph = builder.classified(builder.function(norm))
    after, report = lower_affine(graph, batch_norms=batch_norms)
    assert kinds(after)["affine"] == "DepthwiseConv2D"
    assert kinds(after)["norm"] == ("DepthwiseConv2D" if batch_norms else "BatchNorm")
    assert [change.node for change in report.changes] == ["affine", "norm"][: 1 + batch_norms]
    assert difference(graph, after) <= TOLERANCE


def test_vectors_become_maps_of_one_pixel() -> None:
    builder = GraphBuilder((6, 5, 4))
    hidden = builder.dense(builder.add(GlobalAveragePool(), builder.image), 6, activation=Activation.RELU)
    graph = builder.graph(builder.batch_norm(hidden, name="norm"))
    after, _ = lower_affine(graph)
    assert list(kinds(after))[-3:] == ["norm/map", "norm", "norm/vector"]
    assert after.shapes["norm"] == (1, 1, 6)
    assert after.output == "norm/vector"
    assert after.shapes[after.output] == (6,)
    assert difference(graph, after) <= TOLERANCE


def test_tokens_become_maps_of_one_row() -> None:
    builder = GraphBuilder((6, 5, 4))
    tokens = builder.add(Reshape(shape=(30, 4)), builder.image)
    norm = builder.batch_norm(builder.function(tokens), name="norm")
    swapped = builder.add(Permute(order=(1, 0)), norm)
    graph = builder.classified(builder.add(Reshape(shape=(120,)), swapped))
    after, _ = lower_affine(graph)
    assert after.shapes["norm"] == (1, 30, 4)
    assert after.shapes["norm/vector"] == (30, 4)
    assert difference(graph, after) <= TOLERANCE


def test_relu_behind_a_vectors_affine_is_fused() -> None:
    builder = GraphBuilder((6, 5, 4))
    pooled = builder.add(GlobalAveragePool(), builder.function(builder.image))
    normed = builder.function(builder.batch_norm(pooled, name="norm"), name="relu")
    graph = builder.classified(normed)
    after = run_passes(graph).graph
    op = after.by_name["norm"].op
    assert isinstance(op, DepthwiseConv2D)
    assert op.activation is Activation.RELU
    # The pool gives a map itself: one Reshape is enough.
    assert [kind for kind in kinds(after).values() if kind == "Reshape"] == ["Reshape"]
    assert difference(graph, after) <= TOLERANCE
