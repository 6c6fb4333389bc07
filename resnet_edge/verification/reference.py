"""The float reference's outputs: computed once, and kept in the bundle for the next verification."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.data.datasets import Dataset
    from resnet_edge.verification.target import Target

NAME = "reference-{key}.npy"

KEPT = 4
"""Files, the newest: every choice of images has one of its own."""


def cache_file(target: Target, data: str) -> Path | None:
    """Where the outputs are kept for data with this digest; None where there is no place for them."""
    if target.cache is None:
        return None
    # The data's digest knows only what is done before the artifacts: with --fold-input that is not all.
    contract = json.dumps(target.contract.to_json())
    key = hashlib.sha256(f"{target.key}\0{contract}\0{data}".encode()).hexdigest()
    return target.cache / NAME.format(key=key[:16])


def load(path: Path | None, dataset: Dataset, classes: int) -> NDArray[np.float32] | None:
    """Kept outputs (N, classes); None where there are none, or none that could be the right ones."""
    if path is None or not path.exists():
        return None
    try:
        outputs: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # damaged: compute them again
        return None
    fits = outputs.shape == (len(dataset), classes) and outputs.dtype == np.float32
    return outputs if fits else None


def keep(path: Path | None, outputs: NDArray[np.float32]) -> None:
    """Keep outputs for the next time; a bundle that cannot be written to just does without."""
    if path is None:
        return
    beside = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as stream:
            np.save(stream, outputs, allow_pickle=False)
        beside.replace(path)
        others = path.parent.glob(NAME.format(key="*"))
        for old in sorted(others, key=lambda each: each.stat().st_mtime_ns)[:-KEPT]:
            old.unlink()
    except OSError:
        pass
    finally:  # Ctrl-C leaves nothing either
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
