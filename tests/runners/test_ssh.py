from __future__ import annotations

import json
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from resnet_edge.errors import DependencyMissingError, RunnerUnreachableError, UsageError
from resnet_edge.runners import Machine, agent_engine, wheels
from resnet_edge.runners.agent_process import AgentProcess, ConnectionLostError
from resnet_edge.runners.board_setup import set_up_board, wheels_for
from resnet_edge.runners.commands import CommandFailedError
from resnet_edge.runners.local import LocalRunner
from resnet_edge.runners.ssh import SshRunner
from resnet_edge.runners.ssh_connection import SshConnection, Target
from resnet_edge.runners.wheels import host_versions
from resnet_edge.stages import Stages
from tests.graph_builder import images
from tests.runners.boards import HOST_PYTHON, LoopbackBoard
from tests.runners.test_qemu import FLOAT, GRAPH, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnet_edge.runners import Load
    from resnet_edge.runners.emulation.machine import Emulator

PAUSES = (0.01, 0.05, 0.2)


def connect(board: LoopbackBoard, **options: Any) -> SshRunner:
    return SshRunner(board.url, **{"pauses": PAUSES, "timeout": 120.0, **options})


@pytest.fixture
def board(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBoard]:
    """A board whose Python is this one's: the faults are the same, and sooner there."""
    with LoopbackBoard(folder=tmp_path / "board", python=HOST_PYTHON) as running:
        monkeypatch.setenv("PATH", running.path)
        yield running


def expected(load: Load, count: int) -> np.ndarray:
    with LocalRunner().open(load) as engine:
        return engine.run(images(GRAPH, count))


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "target"),
        [
            ("ssh://board", Target(host="board")),
            ("ssh://pi@raspberry-pi.local:2222", Target(host="raspberry-pi.local", user="pi", port=2222)),
            ("ssh://[fe80::1%25eth0]:22", Target(host="fe80::1%25eth0", port=22)),
        ],
    )
    def test_is_understood(self, url: str, target: Target) -> None:
        assert Target.parse(url) == target

    @pytest.mark.parametrize(
        "url",
        [
            "ssh://",
            "http://board",
            "ssh://-oProxyCommand=touch%20x",
            "ssh://-oProxyCommand=x@board",
            "ssh://board:port",
            "ssh://board/folder",
            "ssh://a b",
            "ssh://board;reboot",
        ],
    )
    def test_or_refused(self, url: str) -> None:
        with pytest.raises(UsageError, match="ssh://") as caught:
            SshRunner(url)
        assert caught.value.exit_code == 2

    def test_a_password_is_refused_and_not_repeated(self) -> None:
        with pytest.raises(UsageError, match="password") as caught:
            SshRunner("ssh://pi:raspberry@board")
        assert "raspberry" not in str(caught.value)

    def test_host_keys_and_passwords_are_never_negotiable(self) -> None:
        argv = SshConnection(Target(host="board"), where="").argv("true")
        assert {"-oBatchMode=yes", "-oStrictHostKeyChecking=yes"} <= set(argv)
        assert argv[-3:] == ["--", "board", "true"]


@pytest.mark.parametrize(("form", "io", "tolerance"), [("tflite", "int8", 0.0), ("onnx", None, FLOAT)])
def test_an_arm_board_computes_what_this_machine_computes(
    form: str, io: Any, tolerance: float, board: LoopbackBoard, emulator: Emulator, tmp_path: Path
) -> None:
    board.set_python(*emulator.command("cortex-a72")[0])
    load = write(form, tmp_path, io=io, batch=None)
    with connect(board) as runner:
        machine = runner.probe()
        assert (machine.architecture, machine.cpu, machine.emulated) == ("aarch64", "Cortex-A72", False)
        with runner.open(load) as engine:
            outputs = engine.run(images(GRAPH, 40))
    np.testing.assert_allclose(outputs, expected(load, 40), rtol=0, atol=tolerance)


def test_artifacts_go_there_once_and_nothing_else_stays(
    board: LoopbackBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = write("tflite", tmp_path)
    for _ in range(2):
        with connect(board) as runner, runner.open(load) as engine:
            engine.run(images(GRAPH, 3))
    files = board.files()
    assert [name.split("/")[0] for name in files] == ["files", "files"]
    assert {Path(name).suffix for name in files} == {".py", ".tflite"}
    # Another artifact of the same name is another file.
    load.artifact.write_bytes(write("tflite", tmp_path, io="int8").artifact.read_bytes())
    pushed: list[Path] = []
    push = SshConnection.push

    def watched(self: SshConnection, local: Path, remote: str, **options: Any) -> None:
        pushed.append(local)
        push(self, local, remote, **options)

    monkeypatch.setattr(SshConnection, "push", watched)
    with connect(board) as runner, runner.open(load), runner.open(load):
        pass
    assert pushed == [load.artifact]


def test_what_reaches_the_remote_shell_is_quoted(board: LoopbackBoard) -> None:
    hostile = "a b'\"; touch here; $(touch here) `touch here` \\ * ~ !! é\n-n"
    with connect(board) as runner:
        assert runner.connection.run('printf %s "$1"', hostile) == hostile
    assert not list(board.home.glob("here"))


def test_the_users_configuration_counts(board: LoopbackBoard) -> None:
    with SshRunner("ssh://pi@board") as runner:  # an alias, with address, port and key
        assert runner.probe().python == ".".join(map(str, sys.version_info[:3]))


def test_an_artifact_is_timed_there(board: LoopbackBoard, tmp_path: Path) -> None:
    with connect(board) as runner:
        timer = runner.timer(write("onnx", tmp_path))
        assert len(timer.time(3, warmup=1)) == 3
        timer.close()


class TestConnectionLost:
    def test_while_an_artifact_is_copied(self, board: LoopbackBoard, tmp_path: Path) -> None:
        load = write("tflite", tmp_path)
        with load.artifact.open("ab") as stream:
            stream.write(bytes(10**6))
        with connect(board) as runner:
            assert runner.board
            board.wire.cut_after(500_000)
            with runner.open(load) as engine:
                np.testing.assert_array_equal(engine.run(images(GRAPH, 3)), expected(load, 3))

    def test_while_inputs_are_copied(
        self, board: LoopbackBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load = write("onnx", tmp_path)
        monkeypatch.setattr(agent_engine, "BLOCK_IMAGES", 50)
        count = 300  # six blocks
        with connect(board) as runner, runner.open(load) as engine:
            before = board.wire.bytes_sent
            engine.run(images(GRAPH, count))
            sent = board.wire.bytes_sent - before
            board.wire.cut_after(sent // 2)
            opened = board.wire.connections
            np.testing.assert_array_equal(engine.run(images(GRAPH, count)), expected(load, count))
            # It went on with the block at which it stopped: not everything was sent again.
            assert board.wire.bytes_sent - before - sent < 1.6 * sent
            assert board.wire.connections > opened

    def test_while_it_runs(
        self, board: LoopbackBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load = write("tflite", tmp_path, io="int8")
        request, runs = AgentProcess.request, []

        def cutting(self: AgentProcess, do: str, **details: Any) -> dict[str, Any]:
            if do == "run":
                runs.append(do)
                if len(runs) == 1:
                    board.wire.cut()
            return request(self, do, **details)

        monkeypatch.setattr(AgentProcess, "request", cutting)
        with connect(board) as runner, runner.open(load) as engine:
            np.testing.assert_array_equal(engine.run(images(GRAPH, 5)), expected(load, 5))
        assert len(runs) == 2

    def test_a_killed_agent_is_started_again(self, board: LoopbackBoard, tmp_path: Path) -> None:
        load = write("tflite", tmp_path)
        with connect(board) as runner, runner.open(load) as engine:
            for process in psutil.Process(board.server_pid).children(recursive=True):
                if any(str(board.home) in part for part in process.cmdline()):
                    process.kill()
            np.testing.assert_array_equal(engine.run(images(GRAPH, 3)), expected(load, 3))

    def test_for_good(self, board: LoopbackBoard, tmp_path: Path) -> None:
        load = write("tflite", tmp_path)
        with connect(board) as runner, runner.open(load) as engine:
            board.wire.close()
            with pytest.raises(ConnectionLostError, match="on and in reach") as caught:
                engine.run(images(GRAPH, 3))
        assert caught.value.exit_code == 6
        assert caught.value.where == board.url


class TestRefusals:
    def test_an_unknown_host_key(self, board: LoopbackBoard) -> None:
        board.forget_host_key()
        with pytest.raises(RunnerUnreachableError, match="accept it") as caught:
            connect(board).probe()
        assert not isinstance(caught.value, ConnectionLostError)  # no reason to try again
        assert (board.folder / "client/known_hosts").read_text() == ""

    def test_another_host_key(self, board: LoopbackBoard) -> None:
        board.change_host_key()
        with pytest.raises(RunnerUnreachableError, match="ssh-keygen -R"):
            connect(board).probe()

    def test_no_key_that_the_board_knows(self, board: LoopbackBoard) -> None:
        (board.folder / "etc/authorized_keys").write_text("")
        with pytest.raises(RunnerUnreachableError, match="Permission denied"):
            connect(board).probe()

    def test_a_full_disk(self, board: LoopbackBoard, tmp_path: Path) -> None:
        program = board.folder / "bin/cat"
        program.write_text(f'#!/bin/sh\nexec {shutil.which("cat")} "$@" > /dev/full\n')
        program.chmod(0o755)
        with connect(board) as runner, pytest.raises(RunnerUnreachableError, match="No space left"):
            runner.open(write("tflite", tmp_path))
        assert not board.files()

    @pytest.mark.parametrize("answer", ["false", "echo 2 7; exit 0;", "echo 3 7; exit 0;"])
    def test_a_python_that_is_too_old(self, answer: str, board: LoopbackBoard) -> None:
        board.set_python(answer)
        with pytest.raises(DependencyMissingError, match=r"3\.8 or newer"):
            connect(board).probe()

    def test_no_runtime(self, board: LoopbackBoard, tmp_path: Path) -> None:
        board.set_python(sys.executable, "-I", "-S")
        with connect(board) as runner:
            assert not runner.probe().packages
            with pytest.raises(DependencyMissingError, match="runners setup ssh://"):
                runner.open(write("tflite", tmp_path))

    def test_a_board_that_never_answers(self, board: LoopbackBoard) -> None:
        board.set_python('[ "$1" = -c ] && echo 3 11 || exec sleep 30;')
        with pytest.raises(RunnerUnreachableError, match=r"within 0\.5 s"):
            connect(board, timeout=0.5).probe()

    def test_no_client(self, board: LoopbackBoard, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(RunnerUnreachableError, match="OpenSSH"):
            connect(board).probe()


def test_two_runners_do_not_get_into_each_others_way(board: LoopbackBoard, tmp_path: Path) -> None:
    load = write("onnx", tmp_path)
    found: list[np.ndarray] = []

    def work(seed: int) -> None:
        with connect(board) as runner, runner.open(load) as engine:
            found.append(engine.run(images(GRAPH, 4)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    np.testing.assert_array_equal(found[0], found[1])
    assert all(name.startswith("files/") for name in board.files())


PIP = """\
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0; fi
if [ "$1 $2" = "-m pip" ]; then
  echo "$@" >> "$HOME/pip.log"
  case "$*" in {refused}) echo "ERROR: No matching distribution found" >&2; exit 1;; esac
  exit 0
fi
exec"""
"""A python3 that stands for one with a network: it notes what it is asked to install."""


class TestSetUp:
    def asked(self, board: LoopbackBoard) -> list[str]:
        """What pip was asked to install."""
        lines = (board.home / "pip.log").read_text().splitlines()
        return [line.split()[-1] for line in lines if " install " in line]

    def test_the_runtimes_go_into_a_private_environment(self, board: LoopbackBoard) -> None:
        board.set_python(PIP.format(refused="nothing"), *HOST_PYTHON)
        with connect(board) as runner:
            assert set_up_board(runner, Stages()) == {}
            assert runner.board.python == f"{board.home}/.cache/resnet-edge/venv/bin/python"
            assert runner.probe().packages["numpy"] == np.__version__
        assert self.asked(board) == [f"{name}=={version}" for name, version in host_versions().items()]

    def test_another_version_is_better_than_none(self, board: LoopbackBoard) -> None:
        board.set_python(PIP.format(refused="*onnxruntime==*"), *HOST_PYTHON)
        with connect(board) as runner:
            assert set_up_board(runner, Stages()) == {}
        assert self.asked(board)[-1] == "onnxruntime"

    def test_a_runtime_without_a_wheel_does_not_stop_the_other(self, board: LoopbackBoard) -> None:
        board.set_python(PIP.format(refused="*ai-edge-litert*"), *HOST_PYTHON)
        with connect(board) as runner:
            problems = set_up_board(runner, Stages())
        assert problems == {"ai-edge-litert": "ERROR: No matching distribution found"}

    @pytest.mark.parametrize("refused", ["*numpy*", "*ai-edge-litert*|*onnxruntime*"])
    def test_without_any_it_fails(self, refused: str, board: LoopbackBoard) -> None:
        board.set_python(PIP.format(refused=refused), *HOST_PYTHON)
        with connect(board) as runner, pytest.raises(DependencyMissingError, match="cannot run artifacts"):
            set_up_board(runner, Stages())

    def test_a_python_without_venv(self, board: LoopbackBoard) -> None:
        line = '[ "$1 $2" = "-m venv" ] && echo "ensurepip is not available" >&2 && exit 1; exec'
        board.set_python(line, *HOST_PYTHON)
        with connect(board) as runner, pytest.raises(DependencyMissingError, match="python3-venv"):
            set_up_board(runner, Stages())
        assert not (board.home / ".cache/resnet-edge/venv").exists()


def test_wheels_are_looked_for_where_a_runtime_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def pip(argv: list[str], **_: Any) -> str:
        asked.append(argv)
        if "onnxruntime" in argv:
            raise CommandFailedError("pip", found="ERROR: No matching distribution found for onnxruntime")
        return json.dumps({"install": [{"metadata": {"name": "ai-edge-litert", "version": "2.3.0"}}]})

    monkeypatch.setattr(wheels, "run", pip)
    board = Machine(
        system="Linux",
        architecture="aarch64",
        cpu="Cortex-A72",
        python="3.11.2",
        libc="glibc 2.36",
        packages={"numpy": "2.0"},
    )
    assert wheels_for(board) == {"ai-edge-litert": "2.3.0", "onnxruntime": None}
    assert "--python-version=3.11" in asked[0]
    assert "--platform=manylinux_2_36_aarch64" in asked[0]
    assert wheels_for(replace(board, libc="")) == {"ai-edge-litert": None, "onnxruntime": None}
