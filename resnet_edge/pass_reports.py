"""What the passes over a graph did and left alone; a bundle's manifest keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that a pass did.

    Attributes:
        node: The node it was done to, by its name before the pass.
        source: That node's layer in the user's model.
        kind: That node's operator before the pass (``BatchNorm``, ``Pad``, ...).
        what: What was done, as a verb: ``folded backward``, ``absorbed``, ``removed``, ...
        into: The nodes that took it up, if any did.
        max_abs_error: For folds, the largest difference between the operators before and the one after, both
            in float32, on seeded normal inputs.
    """

    node: str
    source: str
    kind: str
    what: str
    into: tuple[str, ...] = ()
    max_abs_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One thing that a pass could have done and did not, and why."""

    node: str
    source: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """Everything that one pass did, and what it left alone."""

    name: str
    changes: tuple[Change, ...] = ()
    kept: tuple[Kept, ...] = ()
