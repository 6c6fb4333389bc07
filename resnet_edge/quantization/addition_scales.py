"""Additions without rounding: tensors of one scale add up to whole steps of that scale.

An addition rounds its sum to the steps of its output, which costs a residual chain one rounding a block. If
its inputs have the output's scale, the sum of their integers is exact. The common scale is the coarsest of
theirs, so that nothing more is clipped, but what was finer is now rounded more coarsely itself: it pays where
the scales are alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_edge.graph.operators import Add
from resnet_edge.quantization.groups import keeps_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resnet_edge.graph import Graph, Node
    from resnet_edge.quantization.scales import ScaleGroup

MOST_COARSER = 1.3
"""No scale grows by more, however many additions would gain: a chain's first tensors matter more than its
last, as their noise takes the whole way."""


@dataclass(kw_only=True, eq=False)
class _Cluster:
    """Groups that have one scale so far, or a single one.

    Attributes:
        groups: The groups.
        scale: Theirs.
        rounded: How many tensors are rounded to it.
    """

    groups: list[ScaleGroup]
    scale: float
    rounded: int = 0

    def takes(self, scale: float) -> bool:
        """Whether the groups may get a scale."""
        return all(
            group.scale == scale or (not group.fixed and scale <= MOST_COARSER * group.scale)
            for group in self.groups
        )


def align_additions(graph: Graph, integer: Iterable[str], group_of: Mapping[str, ScaleGroup]) -> None:
    """Give the tensors of additions one scale where that makes less noise.

    The noise of rounding is a twelfth of a step's square; summed up over the tensors that are rounded, it has
    to fall. Of all additions the one that gains most is taken first, and the others are judged anew.

    The image's scale is left alone: it may be that of pixels, which need no rounding.

    Args:
        graph: The float graph.
        integer: Names of the nodes computed in integers.
        group_of: Every tensor's group, with its scale; changed in place.
    """
    chosen = set(integer)
    cluster_of = _clusters(graph, chosen, group_of)
    images = [group_of[name] for name in graph.inputs if name in group_of]
    additions = [
        node
        for node in graph.nodes
        if node.name in chosen
        and isinstance(node.op, Add)
        and not any(group_of[name] is image for name in (*node.inputs, node.name) for image in images)
    ]
    while additions:
        gains = [_gain(node, cluster_of) for node in additions]
        most = max(gains)
        if most <= 0:
            break
        _join(additions.pop(gains.index(most)), cluster_of)
    for cluster in cluster_of.values():
        for group in cluster.groups:
            if group.scale < cluster.scale:
                group.enlarge(cluster.scale)


def _clusters(graph: Graph, integer: set[str], group_of: Mapping[str, ScaleGroup]) -> dict[str, _Cluster]:
    """Every tensor's cluster: for now, its group."""
    clusters: dict[int, _Cluster] = {}
    found: dict[str, _Cluster] = {}
    for name, group in group_of.items():
        start = _Cluster(groups=[group], scale=group.scale)
        cluster = found[name] = clusters.setdefault(id(group), start)
        cluster.rounded += not (name in integer and keeps_scale(graph.by_name[name].op))
    return found


def _members(node: Node, cluster_of: Mapping[str, _Cluster]) -> list[_Cluster]:
    """The clusters of an addition's inputs and output, each once."""
    return list({id(cluster_of[name]): cluster_of[name] for name in (*node.inputs, node.name)}.values())


def _gain(node: Node, cluster_of: Mapping[str, _Cluster]) -> float:
    """By how much the squares of steps fall if an addition's tensors get the coarsest of their scales."""
    members = _members(node, cluster_of)
    scale = max(cluster.scale for cluster in members)
    if not all(cluster.takes(scale) for cluster in members):
        return 0.0
    rounded = sum(cluster.rounded for cluster in members) - 1
    return sum(cluster.rounded * cluster.scale**2 for cluster in members) - rounded * scale**2


def _join(node: Node, cluster_of: dict[str, _Cluster]) -> None:
    """Make the clusters of an addition's tensors one, in which the addition no longer rounds."""
    members = _members(node, cluster_of)
    joined = _Cluster(
        groups=[group for cluster in members for group in cluster.groups],
        scale=max(cluster.scale for cluster in members),
        rounded=sum(cluster.rounded for cluster in members) - 1,
    )
    for name, cluster in cluster_of.items():
        if any(cluster is member for member in members):
            cluster_of[name] = joined
