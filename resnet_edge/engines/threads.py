"""How many threads a runtime gets where nothing else is asked for."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may run on, which a container or ``taskset`` can limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
