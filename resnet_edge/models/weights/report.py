"""What is known about the weights a model got."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """Where a model's weights came from.

    Attributes:
        kind: ``file``, ``random``, or the name on offer (``imagenet``, ``fashion-mnist``).
        naming: How the tensors were named: ``pytorch``, ``keras`` or ``keras-order``; empty for random ones.
        tensors: How many were loaded.
        digest: SHA-256 of the file; empty without one.
        preprocessing: The contract that the weights were trained with, where that is known.
        labels: The classes' names, where the file has them.
        warnings: What the user should know.
    """

    kind: str
    naming: str = ""
    tensors: int = 0
    digest: str = ""
    preprocessing: str | None = None
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
