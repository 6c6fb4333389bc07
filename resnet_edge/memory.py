"""Memory that was freed, but not given back."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Let the operating system have what the C library keeps for later, where it can be told to (glibc).

    After work in several threads that is half a gigabyte, on top of which the next runtime would be loaded.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
        if trim is not None:
            trim(0)
