"""Node names that every format accepts, from whatever the user called the layers."""

from __future__ import annotations

import re
import unicodedata

from resnet_edge.graph.graph import INPUT_NAME, OUTPUT_NAMES

_ILLEGAL = re.compile(r"[^A-Za-z0-9_./-]+")
"""TensorFlow's rule for names of operations is the strictest of the three formats."""


class Names:
    """Hands out unique legal names; the names of the graph's input and output are reserved."""

    def __init__(self) -> None:
        self._taken = {INPUT_NAME, *OUTPUT_NAMES}

    def unique(self, wanted: str) -> str:
        """``wanted`` in ASCII letters, digits and ``_./-``, numbered from 2 where it is taken."""
        base = legal_name(wanted)
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name


def legal_name(text: str) -> str:
    """``text`` with accents dropped and every other illegal run of characters as one ``_``."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode().replace("?", "_")
    name = _ILLEGAL.sub("_", ascii_text)
    # A scope may not be empty and the first character must be a letter, a digit or a dot.
    name = "/".join(part for part in name.split("/") if part).lstrip("_-")
    return name or "layer"
