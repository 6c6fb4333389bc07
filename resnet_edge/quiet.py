"""Keeps what native libraries log on their own off standard error."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator


@contextmanager
def without_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Keep what matches off standard error, and pass on all else that is written there meanwhile.

    Native code does not ask ``sys.stderr``, so the file descriptor itself is redirected for the time being.
    """
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
            rest = pattern.sub(b"", kept.read())
            with suppress(OSError):
                os.write(2, rest)
