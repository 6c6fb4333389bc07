"""The stages of a command: what is going on, and how long each took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Display(Protocol):
    """Shows the user what is going on."""

    def start(self, stage: str) -> None:
        """A stage begins."""
        ...

    def finish(self, stage: str) -> None:
        """It has ended."""
        ...


class Stages:
    """Names the stages, times them, and tells a display.

    Attributes:
        seconds: Wall-clock time by stage; a stage entered again adds up.
    """

    def __init__(self, display: Display | None = None) -> None:
        self._display = display
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens in the block."""
        if self._display:
            self._display.start(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            if self._display:
                self._display.finish(name)
