"""Real models and images that tests may read: a folder beside the project, too large to live in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def shared_file(name: str) -> Path:
    """A file of the folder; skips the test where it is absent, but fails it under CI."""
    path = SHARED / name
    if not path.exists():
        missing = f"{name} is not in {SHARED}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path
