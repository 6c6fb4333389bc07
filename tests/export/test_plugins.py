"""Converters of other distributions plug in through entry points; a broken one harms no other."""

from __future__ import annotations

from importlib import metadata
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge import converters, pipeline
from resnet_edge.errors import ConversionFailedError, UsageError
from resnet_edge.graph.execution import execute
from resnet_edge.pipeline import ExportOptions
from tests.traps import TRAPS

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.graph import Graph

GRAPHS: dict[Path, Graph] = {}


class ToyEngine:
    """Runs what the toy converter kept in memory."""

    def __init__(self, graph):
        self.graph = graph

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def run(self, images):
        return execute(self.graph, np.asarray(images, np.float32))

    def close(self):
        self.graph = None


class ToyConverter:
    """A third-party converter: writes the operators' names."""

    suffix = ".toy"

    def convert(self, graph, destination, settings, quantized=None):
        destination.write_text("\n".join(type(node.op).__name__ for node in graph.nodes))
        GRAPHS[destination] = graph

    def open(self, artifact, *, threads=1):
        return ToyEngine(GRAPHS[artifact])


def point(name, value):
    return EntryPoint(name=name, value=value, group=converters.GROUP)


@pytest.fixture
def with_plugins(monkeypatch):
    def install(*points):
        ours = metadata.entry_points(group=converters.GROUP)
        monkeypatch.setattr(converters, "entry_points", lambda group: [*ours, *points])

    return install


def test_a_third_party_converter_is_proven_like_ours(with_plugins, tmp_path):
    with_plugins(point("toy", f"{__name__}:ToyConverter"))
    model = TRAPS["bias_before_batch_norm"]()
    result = pipeline.export(model, tmp_path / "b", ExportOptions(formats=("toy", "tflite")))
    assert [artifact.format for artifact in result.manifest.artifacts] == ["toy", "tflite"]
    assert (tmp_path / "b" / result.manifest.artifacts[0].path).read_text().startswith("Input\nConv2D")


@pytest.mark.parametrize(
    ("value", "reason"),
    [("no_such_module:Converter", "ModuleNotFoundError"), (f"{__name__}:point", "TypeError")],
    ids=["import fails", "not a converter"],
)
def test_a_broken_plugin_is_listed_and_left_out(with_plugins, tmp_path, value, reason):
    with_plugins(point("broken", value))
    result = pipeline.export(TRAPS["bias_before_batch_norm"](), tmp_path / "b")
    assert len(result.manifest.artifacts) == 3
    (warning,) = [text for text in result.manifest.warnings if "broken" in text]
    assert reason in warning


def test_a_broken_plugin_asked_for_is_an_error(with_plugins, tmp_path):
    with_plugins(point("broken", "no_such_module:Converter"))
    with pytest.raises(ConversionFailedError, match="no_such_module"):
        pipeline.export(TRAPS["bias_before_batch_norm"](), tmp_path / "b", ExportOptions(formats=("broken",)))


def test_unknown_format_lists_the_installed_ones(with_plugins, tmp_path):
    with_plugins(point("toy", f"{__name__}:ToyConverter"))
    with pytest.raises(UsageError, match="onnx, savedmodel, tflite, toy"):
        pipeline.export(TRAPS["bias_before_batch_norm"](), tmp_path / "b", ExportOptions(formats=("coreml",)))
