from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf

from resnet_edge.converters import ConversionSettings
from resnet_edge.engines.savedmodel import METADATA_FILE, SavedModelEngine
from resnet_edge.errors import (
    ConversionFailedError,
    DataRejectedError,
    DependencyMissingError,
    ModelRejectedError,
)
from resnet_edge.graph.execution import execute
from resnet_edge_converters.savedmodel import SavedModelConverter
from tests.graph_builder import GraphBuilder, images
from tests.graphs import OPERATOR_GRAPHS

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.graph import Graph

TOLERANCE = 1e-5
"""Of max(1, max|reference|): both sides sum a few hundred float32 products, in different orders."""

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def converted(graph: Graph, folder: Path, **settings: object) -> Path:
    path = folder / "model-savedmodel"
    SavedModelConverter().convert(graph, path, ConversionSettings(**settings))  # type: ignore[arg-type]
    return path


def assert_computes(path: Path, graph: Graph) -> None:
    inputs = images(graph, 3)
    expected = execute(graph, inputs)
    with SavedModelConverter().open(path) as engine:
        outputs = engine.run(inputs)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max()))


def checkpoint(path: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    names = reader.get_variable_to_shape_map()
    return {name.removesuffix(SUFFIX): reader.get_tensor(name) for name in names if name.endswith(SUFFIX)}


def test_depthwise_convolution_with_unequal_strides(tmp_path: Path) -> None:
    builder = GraphBuilder((8, 9, 3))
    graph = builder.classified(builder.depthwise(builder.image, multiplier=2, strides=(1, 2)))
    assert_computes(converted(graph, tmp_path, batch=None), graph)


def test_grouped_and_depthwise_convolutions_without_onednn(tmp_path: Path) -> None:
    # Processors that oneDNN does not serve run TensorFlow's own kernels, which take fewer attributes; whether
    # it is used is settled when a process starts.
    names = ["conv_groups2", "conv_groups_dilated_asymmetric", "depthwise_dilation2"]
    for name in names:
        (tmp_path / name).mkdir()
        converted(OPERATOR_GRAPHS[name], tmp_path / name, batch=3)
    script = (
        "import sys, pathlib\n"
        "from tests.converters.test_savedmodel import OPERATOR_GRAPHS, assert_computes\n"
        "for name in sys.argv[2:]:\n"
        "    assert_computes(pathlib.Path(sys.argv[1], name, 'model-savedmodel'), OPERATOR_GRAPHS[name])\n"
    )
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("batch", [1, 4, None])
def test_signature(batch: int | None, tmp_path: Path) -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    path = converted(graph, tmp_path, batch=batch)
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    assert {name: spec.shape.as_list() for name, spec in inputs.items()} == {"image": [batch, 9, 7, 3]}
    outputs = signature.structured_outputs
    assert {name: spec.shape.as_list() for name, spec in outputs.items()} == {
        "probabilities": [batch, graph.classes]
    }
    assert_computes(path, graph)


def test_operators_are_named_after_their_nodes(tmp_path: Path) -> None:
    path = converted(OPERATOR_GRAPHS["residual_block"], tmp_path)
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    library = signature.graph.as_graph_def().library
    names = {node.name for function in library.function for node in function.node_def}
    assert {"stem/Conv2D", "stem/Relu", "stage1/block.0/conv-1/Conv2D", "softmax/Softmax"} <= names


def test_variables_are_named_after_their_nodes(tmp_path: Path) -> None:
    graph = OPERATOR_GRAPHS["residual_block"]
    expected = {
        f"{node.name.replace('.', '..')}/{role}": array
        for node in graph.nodes
        for role, array in node.op.weights().items()
    }
    stored = checkpoint(converted(graph, tmp_path))
    assert set(stored) == set(expected)
    assert "stage1/block..0/conv-1/weight" in stored
    for name, array in expected.items():
        np.testing.assert_array_equal(stored[name], array)


def test_taken_names_get_an_underscore(tmp_path: Path) -> None:
    builder = GraphBuilder((4, 4, 2))
    x = builder.image
    for name in ("variables", "conv", "conv/weight", "_odd-/", "/"):
        x = builder.conv(x, 2, name=name)
    graph = builder.classified(x)
    path = converted(graph, tmp_path)
    names = set(checkpoint(path))
    assert {"variables_/weight", "conv/weight", "conv/weight_/weight", "_odd-//weight"} <= names
    assert len(names) == 12
    assert_computes(path, graph)


def test_metadata_is_kept_beside_the_graph(tmp_path: Path) -> None:
    metadata = {"preprocessing": '{"scale": 1}', "labels": "Katze\nHündin"}
    path = converted(OPERATOR_GRAPHS["add"], tmp_path, metadata=metadata)
    document = json.loads((path / METADATA_FILE).read_text("utf-8"))
    assert document["metadata"] == metadata
    assert document["producer"].startswith("resnet-edge ")


def test_nothing_is_printed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from tests.graphs import OPERATOR_GRAPHS;"
        "from resnet_edge.converters import ConversionSettings as S;"
        "from resnet_edge_converters.savedmodel import SavedModelConverter as C;"
        "path = pathlib.Path(sys.argv[1]); C().convert(OPERATOR_GRAPHS['add'], path, S()); C().open(path)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model")],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_an_operator_without_a_form_is_refused_with_its_layer(tmp_path: Path) -> None:
    builder = GraphBuilder((4, 4, 3))
    x = builder.affine(builder.image, name="rescaling")  # lowered by a pass, never seen by converters
    with pytest.raises(ConversionFailedError, match="Affine cannot be written as SavedModel") as caught:
        converted(builder.classified(x), tmp_path)
    assert caught.value.where == "rescaling"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["missing", "empty folder", "file", "random graph", "no variables"])
def test_what_is_no_savedmodel_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "model-savedmodel"
    match damage:
        case "empty folder":
            path.mkdir()
        case "file":
            path.write_text("weights\n")
        case "random graph":
            path.mkdir()
            (path / "saved_model.pb").write_bytes(bytes(range(256)))
        case "no variables":
            converted(OPERATOR_GRAPHS["add"], tmp_path)
            (path / "variables" / "variables.index").unlink()
    with pytest.raises(ModelRejectedError, match="does not accept") as caught:
        SavedModelEngine(path)
    assert caught.value.where == str(path)


def test_a_savedmodel_without_an_image_signature_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "none"))
    vector = tf.TensorSpec([1, 30], tf.float32, name="x")
    function = tf.function(lambda x: {"y": x}, input_signature=[vector])
    tf.saved_model.save(module, str(tmp_path / "vector"), signatures=function.get_concrete_function())
    for name in ("none", "vector"):
        with pytest.raises(ModelRejectedError, match="serving_default"):
            SavedModelEngine(tmp_path / name)


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = converted(OPERATOR_GRAPHS["add"], tmp_path)
    with SavedModelEngine(path) as engine, pytest.raises(DataRejectedError, match="do not fit"):
        engine.run(np.zeros((1, 9, 7, 3), np.float32))


def test_missing_tensorflow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delitem(sys.modules, "resnet_edge.tensorflow_import", raising=False)
    with pytest.raises(DependencyMissingError, match="pip install tensorflow"):
        SavedModelEngine(tmp_path)


def test_tensorflow_is_not_loaded_to_choose_the_format() -> None:
    """Half a gigabyte, which calibration would otherwise come on top of."""
    script = (
        "import sys; from resnet_edge.converters import load_converter;"
        "load_converter('savedmodel'); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_tensorflow_is_loaded_without_keras_which_can_come_later() -> None:
    script = (
        "import sys; from resnet_edge.tensorflow_import import tf; print('keras' in sys.modules);"
        "import keras; print(tf.keras.Sequential is keras.Sequential, keras.backend.backend())"
    )
    # Where the tests of fine-tuning ran before, tf.keras is asked to be Keras 2.
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"True", b"tensorflow"]


def test_loading_tensorflow_leaves_a_programs_objects_to_its_garbage_collector() -> None:
    """Models are full of cycles: frozen, they could never be freed."""
    script = "import gc, resnet_edge.tensorflow_import; print(gc.isenabled(), gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    enabled, frozen = done.stdout.split()
    # Python freezes a few hundred objects of its own at the start.
    assert enabled == b"True"
    assert int(frozen) < 1000
