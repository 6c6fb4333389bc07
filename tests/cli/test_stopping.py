"""Signals whose exception gets lost."""

from __future__ import annotations

import os
import signal

import pytest

from resnet_edge import stopping
from resnet_edge.bundle import writing
from resnet_edge.stages import Stages


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
