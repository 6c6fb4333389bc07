from __future__ import annotations

import ast
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from resnet_edge.converters import ConversionSettings, load_converter
from resnet_edge.errors import DependencyMissingError, ModelRejectedError, RunnerUnreachableError
from resnet_edge.runners import agent
from resnet_edge.runners.agent_process import AgentProcess, ConnectionLostError
from tests.graph_builder import images
from tests.graphs import OPERATOR_GRAPHS

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENT = Path(agent.__file__)
GRAPH = OPERATOR_GRAPHS["residual_block"]
PATIENCE = 60.0
"""Seconds; a slow machine imports a runtime in less."""


def start(*argv: str) -> AgentProcess:
    return AgentProcess(argv, where="here", next_step="none")


@pytest.fixture(scope="module")
def process() -> Iterator[AgentProcess]:
    with start(sys.executable, str(AGENT)) as started:
        yield started


def artifact(folder: Path, form: str, *, batch: int | None = 1) -> Path:
    path = folder / f"model.{form}"
    settings = ConversionSettings(batch=batch, onnx_layout="nhwc")
    load_converter(form).convert(GRAPH, path, settings)
    return path


class TestTheFile:
    def test_is_python_38_and_needs_nothing_of_the_package(self) -> None:
        tree = ast.parse(AGENT.read_text("utf-8"), feature_version=(3, 8))
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert imported - set(sys.stdlib_module_names) == {"numpy"}

    def test_a_probe_imports_no_runtime(self) -> None:
        code = f"import runpy, sys; answer = runpy.run_path({str(AGENT)!r})['probe'](); import json; "
        code += "print(json.dumps([answer, list(sys.modules)]))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        answer, modules = json.loads(done.stdout)
        assert not {"numpy", "ai_edge_litert", "onnxruntime", "tensorflow"} & set(modules)
        assert answer["packages"]["numpy"] == np.__version__
        assert answer["memory"] > 1e8
        assert answer["cores"] >= 1
        assert answer["cpu"]
        assert answer["features"] == sorted(answer["features"])


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("form", ["tflite", "onnx", "savedmodel"])
def test_computes_what_the_local_engine_computes(
    form: str, batch: int | None, process: AgentProcess, tmp_path: Path
) -> None:
    path = artifact(tmp_path, form, batch=batch)
    opened = process.request("open", timeout=PATIENCE, artifact=str(path), format=form, threads=1)
    assert opened["inputs"][0]["shape"] == [batch, *GRAPH.input_shape]
    assert opened["inputs"][0]["dtype"] == "float32"
    assert opened["load_ms"] > 0
    inputs = images(GRAPH, 5)
    np.save(tmp_path / "in.npy", inputs)
    answer = process.request(
        "run",
        timeout=PATIENCE,
        inputs=str(tmp_path / "in.npy"),
        outputs=str(tmp_path / "out.npy"),
        batch=batch or 2,
    )
    digest = hashlib.sha256((tmp_path / "out.npy").read_bytes()).hexdigest()
    assert answer == {"n": 5, "non_finite": 0, "sha256": digest}
    with load_converter(form).open(path) as engine:
        expected = engine.run(inputs)
    # The same kernels on the same numbers; batches of another size may add in another order.
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=0, atol=1e-5)


def test_counts_what_is_not_finite(process: AgentProcess, tmp_path: Path) -> None:
    path = artifact(tmp_path, "onnx")
    process.request("open", timeout=PATIENCE, artifact=str(path), format="onnx")
    np.save(tmp_path / "in.npy", np.full((2, *GRAPH.input_shape), [[[[math.nan]]]], np.float32))
    ends = {"inputs": str(tmp_path / "in.npy"), "outputs": str(tmp_path / "out.npy")}
    answer = process.request("run", timeout=PATIENCE, batch=1, **ends)
    assert answer["non_finite"] == np.load(tmp_path / "out.npy").size


def test_times_the_runs_alone_and_reports_memory(process: AgentProcess, tmp_path: Path) -> None:
    path = artifact(tmp_path, "tflite", batch=None)
    opened = process.request(
        "open", timeout=PATIENCE, artifact=str(path), format="tflite", kernels="reference"
    )
    assert (opened["runtime"], opened["kernels"]) == ("ai-edge-litert", "reference")
    times = process.request("time", timeout=PATIENCE, runs=5, warmup=2, seed=1)["milliseconds"]
    assert len(times) == 5
    assert all(0 < time < 1000 for time in times)
    status = process.request("status", timeout=PATIENCE)
    assert 1e7 < status["peak_memory"] < 1e11  # bytes, not kilobytes


def test_seeded_inputs_fill_the_range_of_integers() -> None:
    tensor = {"shape": [None, 16, 16, 3], "dtype": "int8"}
    noise = agent.seeded_batch(tensor, 0)
    assert noise.dtype == np.int8
    assert noise.shape == (1, 16, 16, 3)
    assert (noise.min(), noise.max()) == (-128, 127)
    np.testing.assert_array_equal(noise, agent.seeded_batch(tensor, 0))


def test_features_are_named_as_the_kernel_names_them() -> None:
    # A Raspberry Pi 5: its HWCAP, and the Features line of its /proc/cpuinfo.
    line = (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
    )
    assert agent.hardware_features(0x119FFF, 0) == line.split()
    assert agent.hardware_features(0, 1 << 13) == ["i8mm"]


class TestErrors:
    def test_a_file_that_the_runtime_refuses(self, process: AgentProcess, tmp_path: Path) -> None:
        path = tmp_path / "model.tflite"
        path.write_bytes(b"not a model")
        with pytest.raises(ModelRejectedError, match="on here does not accept") as caught:
            process.request("open", timeout=PATIENCE, artifact=str(path), format="tflite")
        assert caught.value.where == str(path)
        assert caught.value.found.startswith("ValueError: ")

    def test_a_missing_runtime(self, tmp_path: Path) -> None:
        hide = "import runpy, sys; sys.modules['onnxruntime'] = None; sys.argv = ['agent']; "
        code = f"{hide}runpy.run_path({str(AGENT)!r}, run_name='__main__')"
        with (
            start(sys.executable, "-c", code) as process,
            pytest.raises(DependencyMissingError, match="lacks the artifact's runtime"),
        ):
            process.request("open", timeout=PATIENCE, artifact="model.onnx", format="onnx")

    @pytest.mark.parametrize(
        "request_", [{"do": "dance"}, {}, {"do": "run", "inputs": "", "outputs": "", "batch": 1}]
    )
    def test_a_request_that_makes_no_sense(self, request_: dict[str, Any]) -> None:
        error = agent.Agent().answer(request_)["error"]
        assert error["kind"] == "bad-request"

    def test_a_file_of_inputs_with_objects(self, process: AgentProcess, tmp_path: Path) -> None:
        path = artifact(tmp_path, "onnx")
        process.request("open", timeout=PATIENCE, artifact=str(path), format="onnx")
        np.save(tmp_path / "in.npy", np.array([{}], object), allow_pickle=True)
        ends = {"inputs": str(tmp_path / "in.npy"), "outputs": str(tmp_path / "out.npy")}
        with pytest.raises(RunnerUnreachableError, match="allow_pickle"):
            process.request("run", timeout=PATIENCE, batch=1, **ends)


ECHO = "import sys\nfor line in sys.stdin: print(%s, flush=True)"


class TestTheProcess:
    def test_what_a_runtime_prints_does_not_break_the_answers(self, tmp_path: Path) -> None:
        (tmp_path / "onnxruntime.py").write_text(
            "import os; print('hello'); os.write(1, b'world\\n'); raise ImportError('no')"
        )
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import runpy; "
        code += f"runpy.run_path({str(AGENT)!r}, run_name='__main__')"
        with start(sys.executable, "-c", code) as process:
            with pytest.raises(DependencyMissingError):
                process.request("open", timeout=PATIENCE, artifact="model.onnx", format="onnx")
            assert "python" in process.request("probe", timeout=PATIENCE)
            assert "world" in process.stderr_tail()

    def test_a_command_that_is_not_there(self) -> None:
        with pytest.raises(RunnerUnreachableError, match="cannot be started"):
            start("/nonexistent/python")

    def test_its_last_words(self) -> None:
        code = "import sys; sys.stdin.readline(); sys.exit('out of luck')"
        with start(sys.executable, "-c", code) as process, pytest.raises(ConnectionLostError) as caught:
            process.request("probe", timeout=PATIENCE)
        assert caught.value.found == "exit code 1\nout of luck"
        assert caught.value.exit_code == 6

    def test_its_end_before_a_request(self) -> None:
        with start(sys.executable, "-c", "") as process:
            process._process.wait()
            with pytest.raises(ConnectionLostError, match="exit code 0"):
                process.request("probe", timeout=PATIENCE)

    def test_a_killed_agent(self, tmp_path: Path) -> None:
        code = "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)"
        with (
            start(sys.executable, "-c", code) as process,
            pytest.raises(ConnectionLostError, match="signal 9"),
        ):
            process.request("probe", timeout=PATIENCE)

    def test_no_answer_in_time(self) -> None:
        with (
            start(sys.executable, "-c", "import time; time.sleep(60)") as process,
            pytest.raises(RunnerUnreachableError, match=r"no answer to 'probe' within 0\.2 s"),
        ):
            process.request("probe", timeout=0.2)

    @pytest.mark.parametrize("reply", ["'Welcome to the board'", "'[1]'"])
    def test_something_else_that_answers(self, reply: str) -> None:
        with (
            start(sys.executable, "-c", ECHO % reply) as process,
            pytest.raises(RunnerUnreachableError, match="not the agent"),
        ):
            process.request("probe", timeout=PATIENCE)

    def test_more_on_standard_error_than_a_pipe_holds(self) -> None:
        code = (
            "import sys\nfor line in sys.stdin:\n sys.stderr.write('x' * 300_000)\n print('{}', flush=True)"
        )
        with start(sys.executable, "-c", code) as process:
            assert process.request("probe", timeout=PATIENCE) == {}
            assert process.request("probe", timeout=PATIENCE) == {}


def test_peak_memory_is_the_agents_own() -> None:
    ballast = np.ones(2**25, np.float64)  # 256 MB in the process that starts the agent
    with start(sys.executable, str(AGENT)) as process:
        peak = process.request("status", timeout=PATIENCE)["peak_memory"]
    assert peak < ballast.nbytes / 2
