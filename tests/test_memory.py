"""Giving freed memory back, and the search for cycles."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from resnet_edge.memory import without_collection

SCRIPT = """
import sys
import numpy as np
from resnet_edge.memory import give_back

arrays = [np.ones(8192) for _ in range(2000)]
last = np.ones(8192)  # behind them all: the C library cannot give back what is in front of it by itself
del arrays
print(open("/proc/self/status").read())
give_back()
print(open("/proc/self/status").read())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells memory by Linux' /proc")
def test_freed_memory_goes_back_to_the_operating_system():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True)
    before, after = (int(size) for size in re.findall(r"VmRSS:\s+(\d+) kB", done.stdout))
    # 131 MB were freed; other C libraries than glibc give them back at once.
    assert after < before - 100_000 or before < 100_000


@pytest.mark.parametrize("enabled", [True, False])
def test_cycles_are_searched_for_after_the_block_as_before_it(enabled: bool) -> None:
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with suppress(ValueError), without_collection():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
