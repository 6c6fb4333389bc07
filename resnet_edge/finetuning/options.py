"""What a fine-tuning can be told; imports no framework, so that the command line can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from resnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Method: TypeAlias = Literal["qat", "prune", "cluster"]
Loss: TypeAlias = Literal["distillation", "cross-entropy"]

LEARNING_RATES: Mapping[Method, float] = {"qat": 3e-4, "prune": 1e-3, "cluster": 3e-4}
"""Adam's peak rate by method: a tuned model is near its optimum, except where half its weights are taken."""

MOST_CLUSTERS = 256
"""Of more, int8 weights have no need."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """Everything ``finetune`` can be told besides the two bundles.

    Attributes:
        method: ``qat``: train for integer arithmetic; ``prune``: set weights to zero; ``cluster``: let the
            weights of a layer share few values.
        data: Images to train on: ``fashion-mnist``, a ``.npz`` or a folder of classes.
        validation: Images to choose the best epoch on; None: some of ``data`` are kept apart for it.
        epochs: Times that training sees every image.
        learning_rate: Peak of Adam's rate; None for the method's own.
        batch: Images a step.
        recipe: For ``qat``: which of the bundle's integer recipes to train; None where there is one only.
        sparsity: For ``prune``: share of each layer's weights that becomes zero.
        clusters: For ``cluster``: distinct values a layer.
        layers: For ``prune`` and ``cluster``: names, with wildcards; empty for the method's own choice.
        loss: ``distillation``: the float model's outputs are the goal, and labels are not needed.
        flip: Whether images are mirrored at random.
        shift: Pixels that images are moved by at random, at most.
        patience: Epochs without a better validation loss after which training ends.
        seed: Of everything random.
        command: What the manifest says was called.
    """

    method: Method
    data: str
    validation: str | None = None
    epochs: int = 10
    learning_rate: float | None = None
    batch: int = 64
    recipe: str | None = None
    sparsity: float | None = None
    clusters: int | None = None
    layers: tuple[str, ...] = ()
    loss: Loss = "distillation"
    flip: bool = False
    shift: int = 0
    patience: int = 5
    seed: int = 0
    command: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """The learning rate."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate

    def check(self) -> None:
        """See that the options make sense together, before any work is done.

        Raises:
            UsageError: They do not.
        """
        for option, value, method in (
            ("--recipe", self.recipe, "qat"),
            ("--sparsity", self.sparsity, "prune"),
            ("--clusters", self.clusters, "cluster"),
        ):
            if value is not None and method != self.method:
                raise UsageError(f"{option} goes with --method {method}", where=f"--method {self.method}")
            if value is None and method == self.method and option != "--recipe":
                raise UsageError(f"--method {method} needs {option}", next_step=f"add {option}")
        if self.method == "qat" and self.layers:
            raise UsageError("--layers goes with --method prune or cluster", next_step="leave it out")
        _check_range("--epochs", self.epochs, 1, None)
        _check_range("--batch-size", self.batch, 1, None)
        _check_range("--shift", self.shift, 0, None)
        _check_range("--patience", self.patience, 1, None)
        if self.clusters is not None:
            _check_range("--clusters", self.clusters, 2, MOST_CLUSTERS)
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise UsageError(
                "no such share of weights can be zero",
                where="--sparsity",
                found=f"{self.sparsity:g}",
                allowed="0 or more, and less than 1; 0.5 is half of the weights",
            )
        if not 0 < self.rate < float("inf"):
            raise UsageError("a learning rate is above zero", where="--learning-rate", found=f"{self.rate:g}")


def _check_range(option: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise UsageError(f"{option} {value} makes no sense", where=option, allowed=allowed)
