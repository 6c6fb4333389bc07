"""Memory that was freed, but not given back; and the search for what could be freed."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def give_back() -> None:
    """Let the operating system have what the C library keeps for later, where it can be told to (glibc).

    After work in several threads that is half a gigabyte, on top of which the next runtime would be loaded.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
        if trim is not None:
            trim(0)


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep Python from searching for unreachable cycles in the block.

    A large import makes hundreds of thousands of objects, and all of them stay. Python would look through
    them again and again meanwhile, which is a sixth of TensorFlow's import.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
