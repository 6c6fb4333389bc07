"""Progress and warnings, on stderr."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import click

from resnet_edge.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from resnet_edge.manifest import FinetuneRecord
    from resnet_edge.pipeline import Result


class _Bar:
    """Shows the stages, how far a counted one is, the time so far and the time left."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def start(self, stage: str, total: int | None) -> None:
        self._tasks[stage] = self._bar.add_task(stage, total=total)

    def advance(self, stage: str, done: int) -> None:
        self._bar.update(self._tasks[stage], completed=done)

    def finish(self, stage: str) -> None:
        self._bar.update(self._tasks[stage], total=1, completed=1)


@contextlib.contextmanager
def progress(*, enabled: bool) -> Iterator[Stages]:
    """Stages shown as they run, one line each, on stderr; not at all where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield Stages()
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Stages(_Bar(bar))


def warn(text: str) -> None:
    """One warning line."""
    click.echo(f"warning: {text}", err=True)


def show_result(result: Result, *, as_json: bool) -> None:
    """A finished export or quantization: as one JSON document, or as tables."""
    if as_json:
        document = {
            "bundle": str(result.bundle),
            "manifest": result.manifest.to_json(),
            "seconds": result.seconds,
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from resnet_edge.reports.terminal import show_bundle

    for text in (*result.manifest.warnings, *result.manifest.calibration_notes):
        warn(text)
    show_bundle(result.bundle, result.manifest.to_json(), seconds=result.seconds)


def show_training(record: FinetuneRecord) -> None:
    """What a training has come to."""
    what = "validation accuracy" if record.labelled else "agreement with float in validation"
    click.echo(
        f"{what}: {record.accuracy_before:.2%} before, {record.accuracy_after:.2%} after "
        f"({record.validation_images} images; epoch {record.best_epoch} of {record.epochs} kept)"
    )
    if record.same_prediction is not None and record.within_a_step is not None:
        click.echo(
            f"integers against the trained model: the same prediction on {record.same_prediction:.2%} of the "
            f"images, {record.within_a_step:.2%} of the outputs within one step"
        )
    else:
        click.echo(
            "files are smaller under gzip (see `resnet-edge inspect FILE`), but no faster: kernels are dense"
        )
    if not record.best_epoch:
        warn("no epoch made the model better, so it stays as it was: give more images, or a lower rate")
