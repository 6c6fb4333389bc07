"""The stages of a command: what is going on, and how long each took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from resnet_edge import stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Display(Protocol):
    """Shows the user what is going on."""

    def start(self, stage: str, total: int | None) -> None:
        """A stage begins; ``total`` is how many steps it has, if it counts them."""
        ...

    def advance(self, stage: str, done: int) -> None:
        """So many steps are done."""
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
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Time what happens in the block, which may tell how many of ``total`` steps are done."""
        stopping.check()
        display = self._display
        if display:
            display.start(name, total)
        began = time.perf_counter()
        try:
            yield lambda done: display.advance(name, done) if display else None
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            if display:
                display.finish(name)
