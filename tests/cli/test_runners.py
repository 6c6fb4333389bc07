from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from resnet_edge.runners import board_setup
from resnet_edge.runners.cache import VARIABLE, cache_folder
from resnet_edge.runners.commands import CommandFailedError
from tests.command_line import run
from tests.runners.boards import HOST_PYTHON, LoopbackBoard
from tests.runners.conftest import emulator as emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from resnet_edge.runners.emulation.machine import Emulator


@pytest.fixture
def board(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBoard]:
    with LoopbackBoard(folder=tmp_path / "board", python=HOST_PYTHON) as running:
        monkeypatch.setenv("PATH", running.path)
        yield running


def test_the_cache_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache/resnet-edge"


class TestList:
    def test_before_a_set_up(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv(VARIABLE, str(tmp_path))
        listed = run(capsys, "runners", "list")
        assert listed.code == 0
        assert "qemu:cortex-a53           the emulated ARM machine is not set up" in listed.out
        assert "runners setup qemu" in listed.out
        assert "ssh://" in listed.out

    def test_after_it(self, emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
        listed = run(capsys, "runners", "list", "--json").json
        assert listed["runners"]["qemu:neoverse-n1"] == "ready"
        assert listed["emulator"] == str(emulator.folder)


class TestSetUp:
    def test_what_is_ready_stays(self, emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
        done = run(capsys, "runners", "setup", "qemu", "--json")
        assert done.json == {"runner": "qemu", "not_installed": {}, "seconds": {}}

    def test_this_machine_needs_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "runners", "setup", "local").code == 2

    def test_a_board_that_is_not_there(
        self, board: LoopbackBoard, capsys: pytest.CaptureFixture[str]
    ) -> None:
        board.wire.close()
        done = run(capsys, "runners", "setup", board.url, "--json")
        assert done.code == 6
        assert done.json["error"]["where"] == board.url


class TestProbe:
    def test_this_machine(self, capsys: pytest.CaptureFixture[str]) -> None:
        probed = run(capsys, "runners", "probe", "local", "--json").json
        assert probed["python"] == ".".join(map(str, sys.version_info[:3]))
        assert not probed["emulated"]

    def test_an_emulated_processor(self, emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
        probed = run(capsys, "runners", "probe", "qemu:cortex-a76")
        assert "Linux aarch64, emulated" in probed.out
        assert "Cortex-A76" in probed.out
        assert "asimddp" in probed.out

    def test_a_board_without_runtimes(
        self, board: LoopbackBoard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        board.set_python(sys.executable, "-I", "-S")
        offers = {"numpy": "2.4", "ai-edge-litert": "2.3.0", "onnxruntime": None}
        monkeypatch.setattr(board_setup, "newest", lambda package, platform: offers[package])
        probed = run(capsys, "runners", "probe", board.url)
        assert f"2.3.0 can be: resnet-edge runners setup {board.url}" in probed.out
        assert "onnxruntime     not installed, and there is no wheel" in probed.out

    def test_without_a_network_the_rest_is_told(
        self, board: LoopbackBoard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def newest(package: str, platform: object) -> str:
            raise CommandFailedError("pip has failed", found="no route")

        board.set_python(sys.executable, "-I", "-S")
        monkeypatch.setattr(board_setup, "newest", newest)
        probed = run(capsys, "runners", "probe", board.url)
        assert probed.code == 0
        assert "no route" in probed.err
        assert "processor" in probed.out

    @pytest.mark.parametrize(
        ("name", "code"), [("bluetooth", 2), ("qemu:m4", 2), ("ssh://a:b@c", 2), ("localhost", 2)]
    )
    def test_what_is_no_runner(self, name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "runners", "probe", name).code == code
