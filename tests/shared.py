"""Real trained models and images for tests: a folder beside the project that users do not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """The path of a shared file; without the folder the test is skipped, but in CI it fails."""
    path = _FOLDER / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing, and in CI nothing may be skipped")
        pytest.skip(f"{name} is shared test data that does not come with the project")
    return path
