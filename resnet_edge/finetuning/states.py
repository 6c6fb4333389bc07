"""Where an unfinished training leaves its state: in a hidden folder beside the bundle that it is to make."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def state_file(destination: Path, key: str) -> Path:
    """The file for the training with this key; another training for the same bundle has another."""
    return destination.absolute().parent / f".{destination.name}.training-{key}" / "state.npz"


def has_state(destination: Path) -> bool:
    """Whether a training for this bundle has left a state."""
    return any(_folders(destination))


def forget_states(destination: Path) -> None:
    """Remove what trainings for this bundle have left."""
    for folder in _folders(destination):
        shutil.rmtree(folder, ignore_errors=True)


def _folders(destination: Path) -> Iterator[Path]:
    beside = destination.absolute().parent
    prefix = f".{destination.name}.training-"
    if beside.is_dir():
        yield from (path for path in beside.iterdir() if path.name.startswith(prefix))
