from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.converters import ConversionSettings
from resnet_edge.errors import (
    DataRejectedError,
    DependencyMissingError,
    ModelRejectedError,
    RunnerUnreachableError,
    UsageError,
)
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import load_recipes
from resnet_edge.runners import Load
from resnet_edge.runners.local import LocalRunner
from resnet_edge.runners.qemu import QemuRunner
from resnet_edge_converters.onnx import OnnxConverter
from resnet_edge_converters.tflite import TFLiteConverter
from tests.graph_builder import images
from tests.graphs import OPERATOR_GRAPHS
from tests.minmax import minmax

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.quantization.spec import IoType
    from resnet_edge.runners.emulation.machine import Emulator

GRAPH = OPERATOR_GRAPHS["residual_block"]
FLOAT = 1e-5
"""Of max(1, max|reference|): sums in another order; 2e-6 was measured on ResNet-8."""


def write(form: str, path: Path, *, io: IoType | None = None, batch: int | None = 1) -> Load:
    """The graph in a format, int8 where ``io`` is given."""
    settings = ConversionSettings(batch=batch)
    artifact = path / f"model.{form}"
    statistics = minmax(GRAPH, images(GRAPH, 8))
    quantized = quantize_graph(GRAPH, load_recipes()["int8"], statistics, io=io) if io else None
    converter = TFLiteConverter() if form == "tflite" else OnnxConverter()
    converter.convert(GRAPH, artifact, settings, quantized)
    return Load(artifact=artifact, format=form)


def outputs(runner: LocalRunner | QemuRunner, load: Load, count: int) -> np.ndarray:
    with runner, runner.open(load) as engine:
        return engine.run(images(GRAPH, count, seed=1))


@pytest.mark.parametrize("cpu", ["cortex-a53", "neoverse-n1"])
@pytest.mark.parametrize(
    ("form", "io", "batch", "tolerance"),
    [
        ("tflite", "int8", 1, 0.0),
        ("tflite", "float32", None, 0.0),
        ("tflite", None, 4, FLOAT),
        ("onnx", "uint8", None, 0.0),
        ("onnx", None, 1, FLOAT),
    ],
)
def test_computes_what_this_machine_computes(
    cpu: str,
    form: str,
    io: IoType | None,
    batch: int | None,
    tolerance: float,
    emulator: Emulator,
    tmp_path: Path,
) -> None:
    load = write(form, tmp_path, io=io, batch=batch)
    expected = outputs(LocalRunner(), load, 7)
    np.testing.assert_allclose(outputs(QemuRunner(cpu), load, 7), expected, rtol=0, atol=tolerance)


def test_a_probe_tells_the_processor(emulator: Emulator) -> None:
    with QemuRunner("cortex-a76") as runner:
        machine = runner.probe()
    assert (machine.architecture, machine.cpu, machine.emulated) == ("aarch64", "Cortex-A76", True)
    assert "asimddp" in machine.features
    assert machine.packages["onnxruntime"]


def test_an_artifact_is_timed_in_a_process_of_its_own(emulator: Emulator, tmp_path: Path) -> None:
    timer = QemuRunner().timer(write("tflite", tmp_path, io="int8"))
    times = timer.time(3, warmup=1)
    assert len(times) == 3
    assert min(times) > 0
    assert timer.load_ms > 0
    assert timer.status().peak_memory > 10**7
    timer.close()


def test_what_a_local_engine_refuses_is_refused(emulator: Emulator, tmp_path: Path) -> None:
    load = write("onnx", tmp_path)
    with QemuRunner().open(load) as engine:
        with pytest.raises(DataRejectedError, match="do not fit"):
            engine.run(np.zeros((1, 3, 3, 1), np.float32))
        # The engine is none the worse for it.
        assert engine.run(images(GRAPH, 1)).shape[0] == 1
    load.artifact.write_bytes(b"not a model")
    with pytest.raises(ModelRejectedError, match=r"qemu.*does not accept"):
        QemuRunner().open(load)


def test_a_savedmodel_runs_here_only(emulator: Emulator, tmp_path: Path) -> None:
    with pytest.raises(DependencyMissingError, match="--runner local"):
        QemuRunner().open(Load(artifact=tmp_path, format="savedmodel"))


def test_a_killed_emulator_is_named(emulator: Emulator, tmp_path: Path) -> None:
    with QemuRunner("cortex-a53").open(write("tflite", tmp_path)) as engine:
        assert engine._process is not None
        engine._process.kill()
        with pytest.raises(RunnerUnreachableError, match="qemu:cortex-a53"):
            engine.run(images(GRAPH, 1))


def test_an_emulator_that_never_answers(emulator: Emulator, tmp_path: Path) -> None:
    with pytest.raises(RunnerUnreachableError, match=r"within 0\.01 s"):
        QemuRunner(timeout=0.01).probe()


def test_without_a_set_up_it_says_so(tmp_path: Path) -> None:
    with QemuRunner(cache=tmp_path) as runner, pytest.raises(RunnerUnreachableError, match="setup qemu"):
        runner.probe()


def test_an_unknown_processor() -> None:
    with pytest.raises(UsageError, match="cortex-a53"):
        QemuRunner("m4")
