"""A graph survives being written and read, and damage is one clear error."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.serialization import load_graph, save_graph
from tests.graphs import OPERATOR_GRAPHS


@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_round_trip(tmp_path, name):
    graph = OPERATOR_GRAPHS[name]
    save_graph(graph, tmp_path / "graph.safetensors")
    again = load_graph(tmp_path / "graph.safetensors")
    assert (again.name, again.output) == (graph.name, graph.output)
    for ours, theirs in zip(graph.nodes, again.nodes, strict=True):
        assert (ours.name, ours.inputs, ours.source) == (theirs.name, theirs.inputs, theirs.source)
        assert type(ours.op) is type(theirs.op)
        for field in dataclasses.fields(type(ours.op)):  # type: ignore[arg-type]
            before, after = getattr(ours.op, field.name), getattr(theirs.op, field.name)
            assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after
            assert type(before) is type(after)


def test_same_graph_same_bytes(tmp_path):
    graph = next(iter(OPERATOR_GRAPHS.values()))
    save_graph(graph, tmp_path / "a")
    save_graph(graph, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, 0.99])
def test_truncated(tmp_path, keep):
    path = tmp_path / "graph.safetensors"
    save_graph(next(iter(OPERATOR_GRAPHS.values())), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(ModelRejectedError, match="graph"):
        load_graph(path)


def test_missing(tmp_path):
    with pytest.raises(ModelRejectedError, match="graph"):
        load_graph(tmp_path / "none.safetensors")


def test_a_failing_disk_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file or directory"):
        save_graph(next(iter(OPERATOR_GRAPHS.values())), tmp_path / "no" / "such" / "folder")
