"""How many threads a runtime gets where nothing else is asked for, and NumPy's BLAS on small matrices."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def usable_cores() -> int:
    """The cores that this process may run on, which a container or ``taskset`` can limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy multiply matrices in the calling thread alone.

    BLAS threads wait for each other in a busy loop. For many small products that gains next to nothing on
    idle cores, and on cores that others use it takes ten times as long as one thread does.
    """
    from threadpoolctl import threadpool_limits  # deferred: it looks at every loaded library

    with threadpool_limits(limits=1, user_api="blas"):
        yield
