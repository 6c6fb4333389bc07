"""What is found of an artifact's layers, as values: part of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

OperatorVerdict: TypeAlias = Literal[
    "exact", "within 1 LSB", "rounding", "kernel bug", "differs in file", "not run"
]
"""Of an operator fed with the reference's inputs; ``rounding``: a float operator within its tolerance;
``differs in file``: right as a file of its own, but not in the artifact."""


WRONG: tuple[OperatorVerdict, ...] = ("kernel bug", "differs in file")
"""Of operators that compute something else than they should."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One tensor that exists in both graphs.

    Attributes:
        node: Its name.
        operator: What computes it.
        as_run_db: SQNR of the tensor as it occurs in the run: with the errors of all before it.
        alone_db: SQNR of the operator's output when it is fed with the reference's inputs: its own error.
        max_lsb: Largest difference to the exact integer reference on the same integer inputs, in steps, alone
            and in the run; None for a float operator.
        verdict: On the operator.
        reason: Why it was not run.
    """

    node: str
    operator: str
    as_run_db: float | None
    alone_db: float | None
    max_lsb: int | None
    verdict: OperatorVerdict
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """All tensors, in the order of execution.

    Attributes:
        layers: One by one.
        images: On how many images.
        first: The first guilty layer: where the error as run grows beyond what is usual; empty for none.
        worst: The layer with the largest error of its own.
        wrong: Layers whose operator computes something else than the reference, by itself or in the file.
        sentence: The finding, for people.
    """

    layers: tuple[Layer, ...]
    images: int
    first: str
    worst: str
    wrong: tuple[str, ...]
    sentence: str
