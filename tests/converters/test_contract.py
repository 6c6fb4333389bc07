"""What every converter promises, whatever it writes: one class, run for each of them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from resnet_edge.converters import ConversionSettings
from resnet_edge.engines.savedmodel import METADATA_FILE, SIGNATURE
from resnet_edge.errors import ConversionFailedError, DataRejectedError, ModelRejectedError
from resnet_edge.graph import INPUT_NAME, Graph, Node
from resnet_edge.graph.execution import execute
from resnet_edge.graph.operators import Affine, Dense, GlobalAveragePool, Input
from resnet_edge.inspection.tflite import inspect_tflite
from resnet_edge.tensorflow_import import tf
from resnet_edge_converters.onnx import OnnxConverter
from resnet_edge_converters.savedmodel import SavedModelConverter
from resnet_edge_converters.tflite import TFLiteConverter
from tests.graphs import OPERATOR_GRAPHS, images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.converters import Converter

TOLERANCE = 1e-5
"""Against NumPy, relative to max(1, largest output): both sum float32 products, in different orders. With the
few hundred summands of these graphs that is about 1e-6; a wrong cell, weight or factor is 1e-2 and more."""

BATCHES = (1, 3, None)
COUNTS = (1, 3, 8)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A converter, and how a test looks into its artifacts.

    Attributes:
        name: On the command line.
        converter: Makes it.
        inputs: Names of an artifact's inputs.
        outputs: Names of its outputs.
        metadata: The texts kept in it.
        same_bytes: Whether the same graph gives the same bytes.
    """

    name: str
    converter: Callable[[], Converter]
    inputs: Callable[[Path], list[str]]
    outputs: Callable[[Path], list[str]]
    metadata: Callable[[Path], Mapping[str, str]]
    same_bytes: bool = True


def _signature(path: Path) -> Any:
    return tf.saved_model.load(str(path)).signatures[SIGNATURE]


FORMATS = (
    Format(
        name="tflite",
        converter=TFLiteConverter,
        inputs=lambda path: [tensor.name for tensor in inspect_tflite(path).inputs],
        outputs=lambda path: [tensor.name for tensor in inspect_tflite(path).outputs],
        metadata=lambda path: inspect_tflite(path).metadata,
    ),
    Format(
        name="onnx",
        converter=OnnxConverter,
        inputs=lambda path: [tensor.name for tensor in onnx.load(path).graph.input],
        outputs=lambda path: [tensor.name for tensor in onnx.load(path).graph.output],
        metadata=lambda path: {entry.key: entry.value for entry in onnx.load(path).metadata_props},
    ),
    Format(
        name="savedmodel",
        converter=SavedModelConverter,
        inputs=lambda path: list(_signature(path).structured_input_signature[1]),
        outputs=lambda path: list(_signature(path).structured_outputs),
        metadata=lambda path: json.loads((path / METADATA_FILE).read_text("utf-8"))["metadata"],
        same_bytes=False,
    ),
)


@pytest.fixture(params=FORMATS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Format:
    """Each format in turn."""
    return request.param  # type: ignore[no-any-return]


def convert(form: Format, graph: Graph, folder: Path, **settings: object) -> Path:
    converter = form.converter()
    destination = folder / f"model{converter.suffix}"
    converter.convert(graph, destination, ConversionSettings(**settings))  # type: ignore[arg-type]
    return destination


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale)


class TestContract:
    @pytest.mark.parametrize("name", OPERATOR_GRAPHS)
    def test_computes_what_the_graph_computes(self, form: Format, name: str, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS[name]
        for batch in BATCHES:
            folder = tmp_path / str(batch)
            folder.mkdir()
            artifact = convert(form, graph, folder, batch=batch)
            with form.converter().open(artifact) as engine:
                for count in COUNTS:
                    given = images(graph, count, seed=count)
                    assert_close(engine.run(given), execute(graph, given))

    def test_runs_on_several_threads(self, form: Format, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS["residual_block"]
        with form.converter().open(convert(form, graph, tmp_path), threads=2) as engine:
            assert_close(engine.run(images(graph)), execute(graph, images(graph)))

    @pytest.mark.parametrize(
        ("name", "output"),
        [
            ("conv_3x3_same", "logits"),
            ("relu_output", "logits"),
            ("softmax_output", "probabilities"),
            ("sigmoid_output", "probabilities"),
        ],
    )
    def test_names_input_and_output(self, form: Format, name: str, output: str, tmp_path: Path) -> None:
        artifact = convert(form, OPERATOR_GRAPHS[name], tmp_path)
        assert form.inputs(artifact) == ["image"]
        assert form.outputs(artifact) == [output]

    def test_keeps_metadata(self, form: Format, tmp_path: Path) -> None:
        metadata = {"labels": "Kätzchen\nボート\n", "preprocessing": '{"scale": 0.0039}'}
        artifact = convert(form, OPERATOR_GRAPHS["dense_relu_dense_relu6"], tmp_path, metadata=metadata)
        assert metadata.items() <= form.metadata(artifact).items()

    @pytest.mark.parametrize("batch", BATCHES)
    def test_writes_the_same_bytes_in_every_process(
        self, form: Format, batch: int | None, tmp_path: Path
    ) -> None:
        if not form.same_bytes:
            pytest.skip("TensorFlow writes a SavedModel, and puts what it likes into it")
        settings = {"batch": batch, "metadata": {"labels": "a\nb", "preprocessing": "{}"}}
        here = convert(form, OPERATOR_GRAPHS["residual_block"], tmp_path, **settings)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        # Another hash seed gives sets and dictionaries of strings another order.
        subprocess.run(
            [sys.executable, "-c", _CONVERT, form.name, str(elsewhere), repr(settings)],
            check=True,
            env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        assert here.read_bytes() == (elsewhere / here.name).read_bytes()

    def test_leaves_the_graph_as_it_was(self, form: Format, tmp_path: Path) -> None:
        graph = OPERATOR_GRAPHS["residual_block"]
        before = execute(graph, images(graph))
        convert(form, graph, tmp_path)
        np.testing.assert_array_equal(execute(graph, images(graph)), before)

    def test_refuses_an_operator_that_it_does_not_know(self, form: Format, tmp_path: Path) -> None:
        affine = Affine(scale=np.ones(3, np.float32), offset=np.zeros(3, np.float32))
        nodes = (
            Node(name=INPUT_NAME, op=Input(shape=(4, 4, 3))),
            Node(name="affine", op=affine, inputs=(INPUT_NAME,), source="stem/Normalization"),
            Node(name="pool", op=GlobalAveragePool(), inputs=("affine",)),
        )
        with pytest.raises(ConversionFailedError, match="stem/Normalization"):
            convert(form, Graph(name="unlowered", nodes=nodes, output="pool"), tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_missing_folder_is_an_os_error(self, form: Format, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="absent"):
            convert(form, OPERATOR_GRAPHS["conv_relu"], tmp_path / "absent")
        assert not list(tmp_path.iterdir())

    def test_a_full_disk_is_an_os_error_and_leaves_nothing(self, form: Format, tmp_path: Path) -> None:
        dense = Dense(weight=np.ones((3, 50_000), np.float32), bias=np.zeros(50_000, np.float32))
        nodes = (
            Node(name=INPUT_NAME, op=Input(shape=(4, 4, 3))),
            Node(name="pool", op=GlobalAveragePool(), inputs=(INPUT_NAME,)),
            Node(name="dense", op=dense, inputs=("pool",)),
        )
        graph = Graph(name="wide", nodes=nodes, output="dense")
        with _files_no_larger_than(100_000), pytest.raises(OSError):  # noqa: PT011 - EFBIG, ENOSPC, or neither
            convert(form, graph, tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256)) * 40])
    def test_does_not_open_another_file(self, form: Format, content: bytes, tmp_path: Path) -> None:
        artifact = tmp_path / f"other{form.converter().suffix}"
        artifact.write_bytes(content)
        with pytest.raises((ConversionFailedError, ModelRejectedError), match=artifact.name):
            form.converter().open(artifact)

    @pytest.mark.parametrize("shape", [(2, 9, 8, 3), (2, 8, 8, 1), (0, 8, 8, 3), (8, 8, 3)])
    @pytest.mark.parametrize("batch", BATCHES)
    def test_does_not_run_images_of_another_shape(
        self, form: Format, batch: int | None, shape: tuple[int, ...], tmp_path: Path
    ) -> None:
        artifact = convert(form, OPERATOR_GRAPHS["conv_3x3_same"], tmp_path, batch=batch)
        with form.converter().open(artifact) as engine, pytest.raises(DataRejectedError, match="8, 8, 3"):
            engine.run(np.zeros(shape, np.float32))


_CONVERT = """
import ast, sys
from pathlib import Path
from tests.converters.test_contract import FORMATS, convert
from tests.graphs import OPERATOR_GRAPHS
name, folder, settings = sys.argv[1:]
form = next(form for form in FORMATS if form.name == name)
convert(form, OPERATOR_GRAPHS["residual_block"], Path(folder), **ast.literal_eval(settings))
"""


@contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    """As if the disk were full: writing beyond ``size`` fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
