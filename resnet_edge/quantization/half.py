"""float16 constants, and the layers whose numbers float16 does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.quantization.spec import ConstantQuant, Quantized, QuantSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.recipes import Recipe
    from resnet_edge.quantization.statistics import Statistics

LARGEST = float(np.finfo(np.float16).max)
"""65504: what is larger becomes infinite."""


def half_precision(
    graph: Graph, recipe: Recipe, statistics: Statistics | None, kept: Mapping[str, str]
) -> Quantized:
    """Every constant as float16, but for layers that would overflow.

    A layer overflows if one of its weights, or on the calibration images one of the tensors that it takes or
    gives, is beyond 65504. Without statistics the weights alone are looked at.
    """
    reasons = {**_overflowing(graph, statistics), **kept}
    converted = {
        f"{node.name}/{role}": values.astype(np.float16)
        for node in graph.nodes
        if node.name not in reasons
        for role, values in node.op.weights().items()
    }
    spec = QuantSpec(
        recipe=recipe.base,
        tensors={},
        constants={name: ConstantQuant(dtype="float16") for name in converted},
        kept_float=reasons,
    )
    return Quantized(graph=graph, spec=spec, constants=converted)


def _overflowing(graph: Graph, statistics: Statistics | None) -> dict[str, str]:
    """The nodes that float16 cannot compute, with the value that is beyond it."""
    observed = {} if statistics is None else statistics.observed
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        values = {role: float(np.abs(array).max(initial=0)) for role, array in node.op.weights().items()}
        for name in (node.name, *node.inputs):
            values[f"tensor {name!r}"] = max(map(abs, observed.get(name, (0.0, 0.0))))
        beyond = next(((what, value) for what, value in values.items() if not value <= LARGEST), None)
        if beyond is not None:
            reasons[node.name] = f"{beyond[0]} reaches {beyond[1]:g}, float16 ends at {LARGEST:g}"
    return reasons
