"""Additions without rounding: tensors of one scale add up to whole steps of that scale.

An addition rounds its sum to the steps of its output, which costs a residual chain one rounding a block. If
its inputs have the output's scale, the sum of their integers is exact. The common scale is the coarsest of
theirs, so that nothing more is clipped, but what was finer is now rounded more coarsely itself. Whether that
pays is told by how much of each tensor's noise reaches the logits: in front of a residual chain much does,
and ranges that differ by a third are better left alone.
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


@dataclass(kw_only=True, eq=False)
class _Cluster:
    """Groups that have one scale so far, or a single one.

    Attributes:
        groups: The groups.
        scale: Theirs.
        sensitivity: Noise power of the logits for a unit of noise in all tensors that are rounded to it.
        fixed: Whether the formats prescribe the scale.
    """

    groups: list[ScaleGroup]
    scale: float
    sensitivity: float = 0.0
    fixed: bool = False

    @property
    def noise(self) -> float:
        """Of rounding, in the logits; a step's square stands for the variance, which is a twelfth of it."""
        return self.sensitivity * self.scale**2


def align_additions(
    graph: Graph,
    integer: Iterable[str],
    group_of: Mapping[str, ScaleGroup],
    sensitivity: Mapping[str, float],
) -> None:
    """Give the tensors of additions one scale where the logits get less noise by it.

    Of all additions the one that gains most is taken first, and the others are judged anew.

    Args:
        graph: The float graph.
        integer: Names of the nodes computed in integers.
        group_of: Every tensor's group, with its scale; changed in place.
        sensitivity: By node name, how much noise in all of a tensor's elements reaches the logits.
    """
    cluster_of = _clusters(graph, integer, group_of, sensitivity)
    chosen = set(integer)
    additions = [node for node in graph.nodes if node.name in chosen and isinstance(node.op, Add)]
    while additions:
        gains = [_gain(node, cluster_of, sensitivity) for node in additions]
        most = max(gains)
        if most <= 0:
            break
        _join(additions.pop(gains.index(most)), cluster_of, sensitivity)
    for cluster in cluster_of.values():
        for group in cluster.groups:
            if group.scale < cluster.scale:
                group.enlarge(cluster.scale)


def _clusters(
    graph: Graph,
    integer: Iterable[str],
    group_of: Mapping[str, ScaleGroup],
    sensitivity: Mapping[str, float],
) -> dict[str, _Cluster]:
    """Every tensor's cluster: for now, its group."""
    chosen = set(integer)
    clusters: dict[int, _Cluster] = {}
    found: dict[str, _Cluster] = {}
    for name, group in group_of.items():
        start = _Cluster(groups=[group], scale=group.scale, fixed=group.fixed)
        cluster = found[name] = clusters.setdefault(id(group), start)
        if not (name in chosen and keeps_scale(graph.by_name[name].op)):
            cluster.sensitivity += sensitivity[name]
    return found


def _members(node: Node, cluster_of: Mapping[str, _Cluster]) -> list[_Cluster]:
    """The clusters of an addition's inputs and output, each once."""
    return list({id(cluster_of[name]): cluster_of[name] for name in (*node.inputs, node.name)}.values())


def _gain(node: Node, cluster_of: Mapping[str, _Cluster], sensitivity: Mapping[str, float]) -> float:
    """By how much the noise falls if an addition's tensors get the coarsest of their scales."""
    members = _members(node, cluster_of)
    scale = max(cluster.scale for cluster in members)
    if any(cluster.fixed and cluster.scale < scale for cluster in members):
        return 0.0
    rounded = sum(cluster.sensitivity for cluster in members) - sensitivity[node.name]
    return sum(cluster.noise for cluster in members) - rounded * scale**2


def _join(node: Node, cluster_of: dict[str, _Cluster], sensitivity: Mapping[str, float]) -> None:
    """Make the clusters of an addition's tensors one, in which the addition no longer rounds."""
    members = _members(node, cluster_of)
    joined = _Cluster(
        groups=[group for cluster in members for group in cluster.groups],
        scale=max(cluster.scale for cluster in members),
        sensitivity=sum(cluster.sensitivity for cluster in members) - sensitivity[node.name],
        fixed=any(cluster.fixed for cluster in members),
    )
    for name, cluster in cluster_of.items():
        if any(cluster is member for member in members):
            cluster_of[name] = joined
