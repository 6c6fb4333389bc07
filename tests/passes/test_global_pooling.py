from __future__ import annotations

import pytest

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import AveragePool2D, GlobalAveragePool, GlobalMaxPool, MaxPool2D
from resnet_edge.passes.global_pooling import global_pooling
from tests.graph_builder import GraphBuilder
from tests.passes.comparison import difference

# The map is 6 high and 5 wide.
WHOLE = [
    {"size": (6, 5), "strides": (6, 5)},
    {"size": (6, 5), "strides": (1, 1)},
    {"size": (8, 6), "strides": (8, 6), "padding": Padding(top=1, bottom=1, right=1)},
]
PARTS = [
    {"size": (5, 5), "strides": (6, 5)},
    {"size": (6, 4), "strides": (6, 4)},
    {"size": (3, 5), "strides": (3, 5)},
    # One window, which leaves the last row out.
    {"size": (6, 5), "strides": (6, 5), "padding": Padding(top=1)},
    # Each window holds the whole map, but there are two.
    {"size": (6, 5), "strides": (1, 1), "padding": Padding(bottom=1)},
]


@pytest.mark.parametrize("attributes", WHOLE)
@pytest.mark.parametrize(
    ("pool", "expected"), [(AveragePool2D, GlobalAveragePool), (MaxPool2D, GlobalMaxPool)]
)
def test_pool_over_the_whole_map_is_global(attributes, pool, expected) -> None:
    builder = GraphBuilder((6, 5, 4))
    graph = builder.classified(builder.add(pool(**attributes), builder.image, name="pool"))
    after, report = global_pooling(graph)
    op = after.by_name["pool"].op
    assert isinstance(op, GlobalAveragePool if pool is AveragePool2D else GlobalMaxPool)
    assert op.keepdims
    assert [change.node for change in report.changes] == ["pool"]
    # A mean of 30 values, summed in another order.
    assert difference(graph, after) < 1e-6


@pytest.mark.parametrize("attributes", PARTS)
@pytest.mark.parametrize("pool", [AveragePool2D, MaxPool2D])
def test_pool_over_parts_stays(attributes, pool) -> None:
    builder = GraphBuilder((6, 5, 4))
    graph = builder.classified(builder.add(pool(**attributes), builder.image, name="pool"))
    after, report = global_pooling(graph)
    assert after.by_name["pool"].op is graph.by_name["pool"].op
    assert not report.changes
