"""How far two graphs are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.execution import execute
from resnet_edge.graph.operators import Affine, BatchNorm
from tests.graph_builder import images

if TYPE_CHECKING:
    from resnet_edge.graph import Graph
    from resnet_edge.passes import PassReport


def difference(before: Graph, after: Graph) -> float:
    """Largest difference of the outputs on seeded images, relative to max(1, largest output)."""
    batch = images(before)
    expected = execute(before, batch)
    return float(np.abs(execute(after, batch) - expected).max() / max(1.0, np.abs(expected).max()))


def kinds(graph: Graph) -> dict[str, str]:
    """Operators by node name."""
    return {node.name: type(node.op).__name__ for node in graph.nodes}


def holds_affine(graph: Graph) -> bool:
    """Whether something is left that only the passes know."""
    return any(isinstance(node.op, Affine | BatchNorm) for node in graph.nodes)


def reasons(report: PassReport) -> dict[str, str]:
    """Why each node was left alone."""
    return {kept.node: kept.reason for kept in report.kept}


def changed(report: PassReport) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What was done to each node, and into what."""
    return {change.node: (change.what, change.into) for change in report.changes}
