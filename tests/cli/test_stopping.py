"""Signals whose exception gets lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from resnet_edge import stopping
from resnet_edge.bundle import writing
from resnet_edge.finetuning.states import state_file
from resnet_edge.stages import Stages
from tests.command_line import run
from tests.reports.sample import sample

if TYPE_CHECKING:
    from pathlib import Path


class Deaf:
    """Swallows whatever is raised in it, as callbacks of native code do."""

    def __enter__(self) -> None: ...

    def __exit__(self, *arguments: object) -> bool:
        return True


@pytest.fixture
def listening():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stopping.listen()
    yield
    stopping.listen()  # forgets what has arrived
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, stopping.Terminated)]
)
def test_a_swallowed_signal_stops_the_next_step(listening, number, kind):
    with Deaf():
        os.kill(os.getpid(), number)
    with pytest.raises(kind), Stages().stage("next"):
        raise AssertionError("went on")


def test_a_swallowed_signal_keeps_a_bundle_from_its_place(listening, tmp_path):
    def write():
        with writing(tmp_path / "bundle") as folder:
            (folder / "file").touch()
            with Deaf():
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_without_a_signal_nothing_happens(listening):
    stopping.check()


NOTHING = "nothing was left behind"


@pytest.mark.parametrize(
    ("stop", "how", "code"),
    [(KeyboardInterrupt, "interrupted", 130), (stopping.Terminated, "terminated", 143)],
)
@pytest.mark.parametrize(
    ("work", "command", "kept"),
    [
        ("pipeline.export", "export resnet8 -o {}/new", NOTHING),
        (
            "pipeline.verify",
            "verify {}/new",
            "no report was written; what is cached for the next time is kept",
        ),
        (
            "runners.emulation.set_up.set_up",
            "runners setup qemu",
            "what is done is kept, and resnet-edge runners setup qemu will go on from there",
        ),
        ("pipeline.finetune", "finetune {}/old --method qat --data d --epochs 2 -o {}/new", NOTHING),
    ],
)
def test_a_stopped_command_says_what_it_keeps(
    capsys, tmp_path, monkeypatch, stop, how, code, work, command, kept
):
    def stopped(*arguments: object) -> None:
        raise stop

    monkeypatch.setattr(f"resnet_edge.{work}", stopped)
    result = run(capsys, *command.format(tmp_path, tmp_path).split(), "--json")
    assert (result.code, result.err.strip()) == (code, f"{how}: {kept}")
    assert result.json["error"] == {"what": how, "kept": kept, "exit_code": code}


def test_a_stopped_verify_names_the_reports_that_it_has_written(capsys, tmp_path, monkeypatch):
    def write(_report: object, path: Path) -> None:
        if path.suffix == ".html":
            raise KeyboardInterrupt

    monkeypatch.setattr("resnet_edge.pipeline.verify", lambda *arguments: sample())
    monkeypatch.setattr("resnet_edge.reports.writing.write_report", write)
    first, second = tmp_path / "a.md", tmp_path / "b.html"
    result = run(capsys, "verify", tmp_path, "--report", first, "--report", second)
    kept = f"written: {first}; what is cached for the next time is kept"
    assert result.err.strip() == f"interrupted: {kept}"


def test_a_stopped_training_says_that_it_goes_on_if_it_does(capsys, tmp_path, monkeypatch):
    def stopped(source: object, destination: object, *arguments: object) -> None:
        state_file(tmp_path / "new", "0").parent.mkdir()
        raise stopping.Terminated

    monkeypatch.setattr("resnet_edge.pipeline.finetune", stopped)
    arguments = ("--method", "qat", "--data", "d", "--epochs", 2, "-o", tmp_path / "new")
    result = run(capsys, "finetune", tmp_path / "old", *arguments)
    assert result.err.strip() == "terminated: the same command will go on after the last complete epoch"
