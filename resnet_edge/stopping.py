"""Ctrl-C and SIGTERM stop a command even where the exception that they raise gets lost.

Python raises it in whatever runs just then. Where that is a callback that native code made (TensorFlow traces
and frees a lot that way), the exception is printed and forgotten, and the command would go on to its end.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class Terminated(BaseException):
    """SIGTERM has arrived; unwinds the stack like Ctrl-C, so that nothing half-written stays."""


_EXCEPTIONS: dict[int, type[BaseException]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}

_arrived: list[int] = []
"""Signals; more than one where the first was not heard."""


def listen() -> None:
    """Let both signals raise, and remember them."""
    _arrived.clear()
    for number in _EXCEPTIONS:
        signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    _arrived.append(number)
    raise _EXCEPTIONS[number]


def check() -> None:
    """Raise again what a signal raised before; called between steps, and before anything becomes final."""
    if _arrived:
        raise _EXCEPTIONS[_arrived[0]]


@contextlib.contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """Let a signal that ends the block say what is kept.

    Args:
        what: One sentence for people; empty where there turns out to be nothing.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        stop.add_note(what())
        raise


def kept(stop: BaseException) -> str:
    """What was kept when a signal ended a command, for people."""
    # Click raises an exception of its own in the place of KeyboardInterrupt.
    notes = getattr(stop.__cause__ or stop, "__notes__", ())
    return "; ".join(filter(None, notes)) or "nothing was left behind"
