"""The proof at export catches what it is there for, and says where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from resnet_edge import pipeline
from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph import GraphEditor
from resnet_edge.graph.importing import layers as layer_table
from resnet_edge.graph.importing.translation import window_padding
from resnet_edge.graph.operators import AveragePool2D, Conv2D
from resnet_edge.pipeline import ExportOptions
from resnet_edge.verification.proof import probe_images
from tests.traps import TRAPS


def test_probe_images_are_seeded_and_have_low_frequencies():
    first, second = probe_images((24, 30, 3)), probe_images((24, 30, 3))
    assert (first == second).all()
    noise, smooth = first.astype(float)
    assert np.abs(np.diff(smooth, axis=0)).mean() < np.abs(np.diff(noise, axis=0)).mean() / 3


def _export(tmp_path, name="odd_size_33x57", **options):
    return pipeline.export(TRAPS[name](), tmp_path / "bundle", ExportOptions(formats=("tflite",), **options))


def test_a_wrong_import_names_the_layer(tmp_path, monkeypatch):
    monkeypatch.setitem(
        layer_table.LAYERS,
        "MaxPooling2D",
        lambda call: call.builder.emit(
            AveragePool2D(
                size=(3, 3),
                strides=(2, 2),
                padding=window_padding(call, "same", call.tensor.shape, (3, 3), (2, 2)),
            ),
            (call.tensor,),
            path=call.path,
        ),
    )
    with pytest.raises(ConversionFailedError, match="max_pooling2d"):
        _export(tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_a_wrong_fold_is_told_from_a_wrong_import(tmp_path, monkeypatch):
    from resnet_edge import exporting

    real = exporting.run_passes

    def wrong(imported, source, options):
        result = real(imported, source, options)
        editor = GraphEditor(result.graph)
        name, op = next((node.name, node.op) for node in result.graph.nodes if isinstance(node.op, Conv2D))
        editor.set_op(name, replace(op, bias=op.bias + 1))
        return replace(result, graph=editor.graph())

    monkeypatch.setattr(exporting, "run_passes", wrong)
    with pytest.raises(ConversionFailedError, match="passes"):
        _export(tmp_path)


def test_a_wrong_file_is_told_from_a_wrong_graph(tmp_path, monkeypatch):
    from resnet_edge_converters.tflite import TFLiteConverter

    real = TFLiteConverter.open

    class Off:
        def __init__(self, engine):
            self.engine = engine

        def __enter__(self):
            self.engine.__enter__()
            return self

        def __exit__(self, *error):
            self.engine.__exit__(*error)

        def run(self, images):
            return self.engine.run(images) + 1

    monkeypatch.setattr(TFLiteConverter, "open", lambda self, path, threads=1: Off(real(self, path)))
    with pytest.raises(ConversionFailedError, match="the file or its runtime"):
        _export(tmp_path)


def test_nan_outputs_fail(tmp_path, monkeypatch):
    from resnet_edge.engines.tflite import TFLiteEngine

    real = TFLiteEngine.run
    monkeypatch.setattr(TFLiteEngine, "run", lambda self, images: real(self, images) * np.float32("nan"))
    with pytest.raises(ConversionFailedError, match="does not compute"):
        _export(tmp_path)
