"""How far a training is, and the file from which it goes on after an interruption."""

from __future__ import annotations

import contextlib
import json
import zipfile
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        number: From 1.
        loss: Mean over the training images, while the weights changed; None before any training.
        validation_loss: Mean over the validation images afterwards.
        validation_accuracy: Share (0 to 1) of right predictions among these.
        labelled: Whether right is what the labels say, not the float model.
        best: Whether it has the lowest validation loss so far, and the weights are what was asked for.
    """

    number: int
    loss: float | None
    validation_loss: float
    validation_accuracy: float
    labelled: bool
    best: bool = False

    def sentence(self, epochs: int) -> str:
        """For the terminal."""
        what = "validation accuracy" if self.labelled else "agreement with float in validation"
        return f"epoch {self.number} of {epochs}: loss {self.loss:.4f}, {what} {self.validation_accuracy:.2%}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """What training has come to.

    Attributes:
        epochs: Those behind it.
        best: The model's variables after the best of them; None if none counts yet.
        start: The validation loss before any training, where a model could stay as it was; else None.
    """

    epochs: tuple[Epoch, ...] = ()
    best: Sequence[NDArray[Any]] | None = None
    start: float | None = None

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether all epochs are over, or the last few brought nothing."""
        if len(self.epochs) >= epochs:
            return True
        untrained = None if self.start is None else 0
        best = next((epoch.number for epoch in reversed(self.epochs) if epoch.best), untrained)
        return best is not None and len(self.epochs) - best >= patience

    def after(self, epoch: Epoch, values: Sequence[NDArray[Any]], *, eligible: bool) -> Progress:
        """The progress with one more epoch, whose weights can be the best if ``eligible``."""
        losses = [each.validation_loss for each in self.epochs if each.best]
        if self.start is not None:
            losses.append(self.start)
        best = eligible and (not losses or epoch.validation_loss < min(losses))
        return Progress(
            epochs=(*self.epochs, replace(epoch, best=best)),
            best=tuple(values) if best else self.best,
            start=self.start,
        )

    def save(self, path: Path, variables: Sequence[Any]) -> None:
        """Write the progress and the variables beside the old file, then take its place."""
        arrays = {f"now{index}": np.asarray(variable) for index, variable in enumerate(variables)}
        arrays |= {f"best{index}": value for index, value in enumerate(self.best or ())}
        beside = path.with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            story = json.dumps({"start": self.start, "epochs": [asdict(epoch) for epoch in self.epochs]})
            np.savez(stream, allow_pickle=False, story=np.array(story), **arrays)
        beside.replace(path)

    @classmethod
    def load(cls, path: Path, variables: Sequence[Any]) -> Progress:
        """The progress that a file keeps, put back into the variables; none where there is no such file.

        A file that is damaged, or of another model, counts as none: training starts over.
        """
        with contextlib.suppress(
            FileNotFoundError, OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile
        ):
            with np.load(path, allow_pickle=False) as file:
                story = json.loads(str(file["story"]))
                epochs = tuple(Epoch(**fields) for fields in story["epochs"])
                values = [file[f"now{index}"] for index in range(len(variables))]
                kept = sum(name.startswith("best") for name in file.files)
                best = [file[f"best{index}"] for index in range(kept)]
            if [value.shape for value in values] == [tuple(variable.shape) for variable in variables]:
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
                return cls(epochs=epochs, best=best or None, start=story["start"])
        return cls()
