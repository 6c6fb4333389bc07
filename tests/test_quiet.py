from __future__ import annotations

import os
import re
import threading

import pytest

from resnet_edge.quiet import without_lines

CHATTER = re.compile(rb"^INFO .*\n", re.MULTILINE)
OTHER_CHATTER = re.compile(rb"^NOTE .*\n", re.MULTILINE)


def test_only_what_matches_is_kept_off_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines(CHATTER):
        os.write(2, b"before\nINFO one\nINFO two\nafter\n")
    os.write(2, b"INFO later\n")
    assert capfd.readouterr().err == "before\nafter\nINFO later\n"


def test_what_was_written_before_an_error_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"INFO one\nthe reason\n")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), without_lines(CHATTER):
        fail()
    assert capfd.readouterr().err == "the reason\n"


def test_blocks_in_several_threads_share_the_redirection(capfd: pytest.CaptureFixture[str]) -> None:
    """The second block begins inside the first one and ends after it."""
    first_ended = threading.Event()

    def second() -> None:
        with without_lines(OTHER_CHATTER):
            begun.set()
            first_ended.wait()
            os.write(2, b"INFO one\nNOTE two\nthe reason\n")

    begun = threading.Event()
    thread = threading.Thread(target=second)
    with without_lines(CHATTER):
        thread.start()
        begun.wait()
    first_ended.set()
    thread.join()
    os.write(2, b"INFO later\n")
    assert capfd.readouterr().err == "the reason\nINFO later\n"
