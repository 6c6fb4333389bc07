"""Progress and warnings, on stderr."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from resnet_edge.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


class _Bar:
    """Shows the stage at work, what is done, and the time so far; nothing when stderr is no terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def start(self, stage: str) -> None:
        self._tasks[stage] = self._bar.add_task(stage, total=None)

    def finish(self, stage: str) -> None:
        self._bar.update(self._tasks[stage], total=1, completed=1)


@contextlib.contextmanager
def progress(*, enabled: bool) -> Iterator[Stages]:
    """Stages shown as they run: one line each with its time."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield Stages()
        return
    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield Stages(_Bar(bar))


def warn(text: str) -> None:
    """One warning line."""
    click.echo(f"warning: {text}", err=True)
