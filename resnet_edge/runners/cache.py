"""Where the runners keep what they have downloaded or made."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "RESNET_EDGE_CACHE"
"""Environment variable that names another folder than the user's cache directory."""


def cache_folder() -> Path:
    """The folder; it need not exist yet."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("resnet-edge", appauthor=False)
