"""How much noise in each channel of each tensor reaches the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.engines.threads import one_blas_thread
from resnet_edge.graph.execution import execute_all
from resnet_edge.graph.gradients import backward_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph

IMAGES = 32
"""So many show what there is to know; the choices made of sixteen and of two hundred were the same."""

SEED = 0
"""Of the random signs: the same images give the same figures."""


def sensitivities(graph: Graph, batches: Iterable[NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
    """The noise power of the logits that a unit of noise variance in the elements of a channel causes.

    That is, of (d logit / d element)^2 the sum over logits and over the map's positions, and the mean over
    images: right for noise that is small, white and zero on average. Elements that are zero have no noise, as
    every grid has a point for them. The sum over logits is estimated as the
    square's expectation under random cotangents of +1 and -1, one an image (Hutchinson, "A stochastic
    estimator of the trace of the influence matrix", 1989). The logits are the graph's output, or what a
    softmax or sigmoid at its end takes: saturated probabilities have no gradient to speak of.

    Args:
        graph: The float graph.
        batches: Model inputs (N, height, width, channels). How they are batched makes no difference, and one
            batch's tensors are in memory at a time.

    Returns:
        By node name, (channels,); zeros for what the logits do not depend on.

    Raises:
        ValueError: There are no images.
    """
    # Drawn image by image, whatever the batches: random() takes a whole word of the generator for each sign.
    rng = np.random.default_rng(SEED)
    sums = {node.name: np.zeros(graph.shapes[node.name][-1]) for node in graph.nodes}
    count = 0
    with one_blas_thread():
        for images in batches:
            tensors = execute_all(graph, images)
            signs = np.where(rng.random(tensors[graph.logits].shape) < 0.5, np.float32(-1), np.float32(1))
            for node, gradient in backward_nodes(graph, tensors, graph.logits, signs):
                sums[node.name] += _power(np.where(tensors[node.name] != 0, gradient, 0))
            count += len(images)
    if not count:
        raise ValueError("takes at least one image")
    return {name: total / count for name, total in sums.items()}


def _power(gradient: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sum of squares of every channel, (channels,): in float32 within an image only."""
    cells = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    return np.asarray(np.einsum("npc,npc->nc", cells, cells).sum(axis=0, dtype=np.float64))
