"""Which layer is to blame, out of the layers' figures: a broken operator, or quantization itself.

An operator that computes something else than the reference on the same inputs is to blame whatever the
figures say. Where there is none, errors come from quantization, and every layer adds its share: on trained
ResNets in 8 bits it has 33 to 45 dB alone, and costs up to 5 dB as run. A layer is named if it costs more
than ``USUAL_FALL_DB`` and leaves less than ``GOOD_DB``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.verification.layer import WRONG, Layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnet_edge.graph import Graph
    from resnet_edge.verification.layer import Layer
    from resnet_edge.verification.tensors import ExposedRun

USUAL_FALL_DB = 6.0
"""From the worst of a layer's inputs to its output, as run; beyond it the noise has four times the power."""

GOOD_DB = 30.0
"""Above it noise has less than a thousandth of the signal's power, wherever it comes from."""


def blame(graph: Graph, layers: Sequence[Layer], run: ExposedRun) -> Layers:
    """The finding.

    Args:
        graph: The float graph.
        layers: In the order of execution.
        run: Where the tensors as run come from.
    """
    wrong = [layer for layer in layers if layer.verdict in WRONG]
    first = wrong[0] if wrong else _first_fall(graph, layers)
    worst = min((layer for layer in layers if layer.alone_db is not None), key=own_error, default=None)
    parts = [*_on_operators(layers, wrong), *_on_errors(first, worst, wrong), *_on_run(run)]
    return Layers(
        layers=tuple(layers),
        images=len(run.outputs),
        first=first.node if first else "",
        worst=worst.node if worst else "",
        wrong=tuple(layer.node for layer in wrong),
        sentence=f"{'; '.join(parts)} ({_counted(len(run.outputs), 'image')}).",
    )


def _first_fall(graph: Graph, layers: Sequence[Layer]) -> Layer | None:
    """The first layer whose tensor is unusually far below what goes into it."""
    as_run = {layer.node: layer.as_run_db for layer in layers}
    for layer in layers:
        given = [as_run.get(name) for name in graph.by_name[layer.node].inputs]
        # An image or a tensor that is exact leaves all of the fall to the layer.
        before = min((ratio for ratio in given if ratio is not None), default=float("inf"))
        found = layer.as_run_db
        if found is not None and found < min(before - USUAL_FALL_DB, GOOD_DB):
            return layer
    return None


def own_error(layer: Layer) -> float:
    """What to sort by, from the largest error of a layer's own to none, in dB."""
    return float("inf") if layer.alone_db is None else layer.alone_db


def _on_operators(layers: Sequence[Layer], wrong: Sequence[Layer]) -> list[str]:
    """Whether operators compute what they are to compute."""
    if not wrong:
        run = [layer for layer in layers if layer.verdict != "not run"]
        left = f", {len(layers) - len(run)} were not run" if len(run) < len(layers) else ""
        return [f"no kernel bug: {_counted(len(run), 'operator')} computed what the reference computes{left}"]
    first = wrong[0]
    steps = "" if first.max_lsb is None else f", by up to {first.max_lsb} LSB"
    more = f" (and {_counted(len(wrong) - 1, 'other')})" if len(wrong) > 1 else ""
    if first.verdict == "kernel bug":
        return [f"kernel bug: {_named(first)} differs from the reference on the same inputs{steps}{more}"]
    finding = f"{_named(first)} does not compute what the same operator does alone{steps}{more}"
    return [f"the file differs from its spec: {finding}"]


def _on_errors(first: Layer | None, worst: Layer | None, wrong: Sequence[Layer]) -> list[str]:
    """Where errors arise, and where the largest does."""
    parts = []
    if first is not None and not wrong:
        parts.append(f"accumulated drift first falls at {_named(first)}, to {first.as_run_db:.1f} dB as run")
    elif not wrong:
        parts.append("accumulated drift only, without an unusual fall")
    if worst is not None:
        parts.append(f"the largest error of its own has {_named(worst)}, {worst.alone_db:.1f} dB alone")
    return parts


def _on_run(run: ExposedRun) -> list[str]:
    """Whether the tensors are those of the file as it is shipped."""
    if run.difference == 0.0:
        return []
    return [
        f"with its tensors in sight the runtime computes outputs that differ by up to {run.difference:.2g}"
    ]


def _named(layer: Layer) -> str:
    return f"{layer.node} ({layer.operator})"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
