"""Versions of the packages that had a hand in a result."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions by name of the distribution.

    Those that are not installed are left out: a runtime may be missing, and TensorFlow and ONNX Runtime come
    under several names (``tensorflow-cpu``, ``onnxruntime-gpu``).
    """
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
