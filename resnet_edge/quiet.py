"""Keeps what native libraries log on their own off standard error."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator


class _Redirection:
    """Standard error's file descriptor, redirected for as long as any block needs it.

    The descriptor belongs to the process: of blocks in several threads, the first to begin redirects it and
    the last to end brings it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._patterns: list[re.Pattern[bytes]] = []
        self._undo = ExitStack()

    def begin(self, pattern: re.Pattern[bytes]) -> None:
        """A block begins; what matches is not shown when the last one has ended."""
        with self._lock:
            if not self._blocks:
                self._patterns.clear()
                self._undo.enter_context(_redirected(self._patterns))
            self._blocks += 1
            self._patterns.append(pattern)

    def end(self) -> None:
        """A block ends."""
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                self._undo.close()


@contextmanager
def _redirected(patterns: list[re.Pattern[bytes]]) -> Iterator[None]:
    """Keep what is written to standard error, and pass on in the end what matches none of the patterns."""
    with suppress(AttributeError):  # without a console there is no sys.stderr
        sys.stderr.flush()
    try:
        standard_error = os.dup(2)
    except OSError:  # closed, as in a service: there is nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            kept.seek(0)
            rest = kept.read()
            for pattern in patterns:
                rest = pattern.sub(b"", rest)
            with suppress(OSError):
                os.write(2, rest)


_redirection = _Redirection()


@contextmanager
def without_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Keep what matches off standard error, and pass on all else that is written there meanwhile.

    Native code does not ask ``sys.stderr``, so the file descriptor itself is redirected for the time being.
    """
    _redirection.begin(pattern)
    try:
        yield
    finally:
        _redirection.end()
