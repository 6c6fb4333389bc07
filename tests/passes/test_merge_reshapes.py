from __future__ import annotations

import pytest

from resnet_edge.graph.operators import Concat, GlobalAveragePool, GlobalMaxPool, Reshape
from resnet_edge.passes.merge_reshapes import merge_reshapes
from tests.graph_builder import GraphBuilder
from tests.passes.comparison import changed, difference, kinds


@pytest.mark.parametrize("pool", [GlobalAveragePool, GlobalMaxPool])
@pytest.mark.parametrize(("keepdims", "shape"), [(True, (4,)), (False, (1, 1, 4))])
def test_global_pool_shapes_its_result(pool, keepdims: bool, shape: tuple[int, ...]) -> None:
    builder = GraphBuilder((6, 5, 4))
    pooled = builder.add(pool(keepdims=keepdims), builder.image, name="pool")
    graph = builder.classified(builder.add(Reshape(shape=shape), pooled, name="reshape"))
    after, report = merge_reshapes(graph)
    assert after.shapes["pool"] == shape
    assert changed(report)["reshape"] == ("removed", ())
    assert "reshape" not in after.by_name
    assert difference(graph, after) == 0


def test_global_pool_that_feeds_something_else_keeps_its_shape() -> None:
    builder = GraphBuilder((6, 5, 4))
    pooled = builder.add(GlobalAveragePool(), builder.image, name="pool")
    shaped = builder.conv(builder.add(Reshape(shape=(1, 1, 4)), pooled, name="map"), 3, (1, 1))
    flat = builder.add(Reshape(shape=(3,)), shaped)
    graph = builder.classified(builder.add(Concat(), flat, pooled))
    after, report = merge_reshapes(graph)
    assert not report.changes
    assert kinds(after) == kinds(graph)


def test_reshape_of_a_pool_to_another_shape_stays() -> None:
    builder = GraphBuilder((6, 5, 4))
    pooled = builder.add(GlobalAveragePool(), builder.image, name="pool")
    graph = builder.classified(builder.add(Reshape(shape=(2, 1, 2)), pooled, name="reshape"))
    after, report = merge_reshapes(graph)
    assert not report.changes
    assert "reshape" in after.by_name


def test_rows_of_reshapes_become_one() -> None:
    builder = GraphBuilder((6, 5, 4))
    first = builder.add(Reshape(shape=(30, 4)), builder.image, name="first")
    second = builder.add(Reshape(shape=(4, 30)), first, name="second")
    third = builder.add(Reshape(shape=(120,)), second, name="third")
    graph = builder.classified(third)
    after, report = merge_reshapes(graph)
    assert changed(report) == {"first": ("merged", ("second",)), "second": ("merged", ("third",))}
    assert list(kinds(after)) == ["image", "third", "head"]
    assert difference(graph, after) == 0


def test_there_and_back_again() -> None:
    builder = GraphBuilder((6, 5, 4))
    flat = builder.add(Reshape(shape=(120,)), builder.image, name="there")
    graph = builder.classified(builder.add(Reshape(shape=(6, 5, 4)), flat, name="back"))
    after, report = merge_reshapes(graph)
    assert "Reshape" not in {kind for name, kind in kinds(after).items() if name != "flat"}
    assert changed(report)["back"] == ("removed", ())
    assert difference(graph, after) == 0


def test_reshape_with_another_consumer_is_kept_for_it() -> None:
    builder = GraphBuilder((2, 2, 3))
    flat = builder.add(Reshape(shape=(12,)), builder.image, name="shared")
    pooled = builder.add(GlobalAveragePool(), builder.add(Reshape(shape=(1, 4, 3)), flat, name="map"))
    graph = builder.classified(builder.add(Concat(), pooled, flat))
    after, _ = merge_reshapes(graph)
    assert after.by_name["map"].inputs == ("image",)
    assert "shared" in after.by_name
    assert difference(graph, after) == 0
