"""Ctrl-C and SIGTERM stop a command even where the exception that they raise gets lost.

Python raises it in whatever runs just then. Where that is a callback that native code made (TensorFlow traces
and frees a lot that way), the exception is printed and forgotten, and the command would go on to its end.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
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
