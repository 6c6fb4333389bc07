"""Activation equalization: the same function with channels that make use of their tensor's one scale.

All channels of a tensor share a scale, so one whose values are small gets few of its 256 steps. A channel
may be divided by any positive factor if every layer behind multiplies it again, also through ReLUs, pools,
slices, paddings and additions; where tensors are added, all of them need the same factor. Weights with one
scale an output channel take up the division for nothing, and the multiplication at little cost.

Where :mod:`.equalization` looks at weights, this looks at activations, and follows channels through residual
additions. Such factors for chains of layers: Meller et al., "Same, Same But Different: Recovering Neural
Network Quantization Error Through Weight Factorization", 2019.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.engines.threads import usable_cores
from resnet_edge.graph import GraphEditor
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    Input,
    MaxPool2D,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.quantization.disjoint_sets import DisjointSets
from resnet_edge.quantization.equalization import scale_inputs, scale_outputs
from resnet_edge.quantization.groups import keeps_scale
from resnet_edge.quantization.observed_session import ObservedSession
from resnet_edge.quantization.rectified_sums import effective, rectified_addends

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node

MOST_FACTOR = 2.0**3
"""No channel is enlarged further: what calibration images hardly excite, others may."""

_POWER = 8
"""Of the mean that joins the images' maxima: near the largest, without hanging on one image."""

_FIXED = 0
"""The factor of channels that have to stay as they are."""


def channel_magnitudes(
    graph: Graph, batches: Iterable[NDArray[np.float32]]
) -> dict[str, NDArray[np.float64]]:
    """How large each channel of every tensor gets, by node name: (channels,).

    The power mean over images of the largest absolute value that has any effect behind the next ReLU.

    Args:
        graph: The float graph, in the form that converters take.
        batches: Model inputs (N, height, width, channels), at least one.
    """
    session, addends = ObservedSession(graph, usable_cores()), rectified_addends(graph)
    sums = {node.name: np.zeros(graph.shapes[node.name][-1]) for node in graph.nodes}
    images = 0
    for batch in batches:
        images += len(batch)
        tensors = session.run(batch)
        for name, tensor in tensors.items():
            values = tensor.values
            if name in addends:
                values = effective(values, tensors[addends[name]].values)
            axes = tuple(axis for axis in range(1, values.ndim) if axis != tensor.channel_axis)
            largest = np.maximum(values.max(axis=axes), -values.min(axis=axes))
            sums[name] += (largest.astype(np.float64) ** _POWER).sum(axis=0)
    return {name: (total / images) ** (1 / _POWER) for name, total in sums.items()}


def equalize_activations(graph: Graph, magnitudes: Mapping[str, NDArray[np.float64]]) -> Graph:
    """The graph with channels rescaled so that they get about as large as their tensor's largest.

    A channel's factor is its magnitude over that of the largest of its tensor; where several tensors share
    it, it is the largest of theirs: so no tensor gets a wider range than it had. The result computes the same
    up to float rounding, but its inner tensors have other ranges: calibrate this graph.

    Args:
        graph: The folded float graph.
        magnitudes: Of its channels, by :func:`channel_magnitudes`.
    """
    numbers = shared_factors(graph)
    factors = np.zeros(1 + max(int(number.max()) for number in numbers.values()))
    for node in graph.nodes:
        largest = magnitudes[node.name].max()
        if largest > 0 and not keeps_scale(node.op):
            np.maximum.at(factors, numbers[node.name], magnitudes[node.name] / largest)
    factors = np.maximum(factors, 1 / MOST_FACTOR, where=factors > 0, out=np.ones_like(factors))
    factors[_FIXED] = 1.0
    factor_of = {name: factors[number].astype(np.float32) for name, number in numbers.items()}
    editor = GraphEditor(graph)
    for node in graph.nodes:
        if isinstance(node.op, Conv2D | DepthwiseConv2D | Dense):
            taking = scale_inputs(node.op, factor_of[node.inputs[0]])
            editor.set_op(node.name, scale_outputs(taking, np.reciprocal(factor_of[node.name])))
    return editor.graph()


def shared_factors(graph: Graph) -> dict[str, NDArray[np.intp]]:
    """For every tensor the number of each channel's factor, (channels,).

    Channels with the same number must have the same factor; those with number 0 cannot have any.
    """
    sizes = [graph.shapes[node.name][-1] for node in graph.nodes]
    ends = list(accumulate(sizes, initial=1))
    channels = {
        node.name: np.arange(end, end + size)
        for node, end, size in zip(graph.nodes, ends, sizes, strict=False)
    }
    sets = DisjointSets(ends[-1])
    for node in graph.nodes:
        for first, second in _ties(graph, node, channels):
            for one, other in np.broadcast(first, second):
                sets.join(int(one), int(other))
    for number in channels[graph.output]:
        sets.join(_FIXED, int(number))
    return {
        name: np.array([sets.find(int(number)) for number in own], np.intp) for name, own in channels.items()
    }


def _ties(
    graph: Graph, node: Node, channels: Mapping[str, NDArray[np.intp]]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp] | int]]:
    """Pairs of channels that one factor must hold for, in arrays of equal length, or against a single one."""
    own, inputs = channels[node.name], [channels[name] for name in node.inputs]
    match node.op:
        case Conv2D() | DepthwiseConv2D() | Dense():
            pass
        case Add() if all(graph.shapes[name] == graph.shapes[node.name] for name in node.inputs):
            yield from ((own, source) for source in inputs)
        case MaxPool2D() | AveragePool2D() | GlobalAveragePool() | GlobalMaxPool():
            yield own, inputs[0]
        case Elementwise(function=Function.RELU):
            yield own, inputs[0]
        case Concat():
            yield own, np.concatenate(inputs)
        case Slice(begin=begin, end=end, strides=strides):
            yield own, inputs[0][begin[2] : end[2] : strides[2]]
        case Pad(channels=(before, _)):
            yield own[before : before + len(inputs[0])], inputs[0]
        case Reshape() if len(own) % len(inputs[0]) == 0:
            # Row by row, channels come last: they follow each other over and over.
            yield own, np.tile(inputs[0], len(own) // len(inputs[0]))
        case Input():
            yield own, _FIXED
        case _:
            yield from ((tensor, _FIXED) for tensor in (own, *inputs))
    if getattr(node.op, "activation", Activation.NONE) is Activation.RELU6:
        yield own, _FIXED
