"""A network and images so small that an epoch is a matter of milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.data.datasets import ArrayImages, Dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.graph.operators import Activation, GlobalAveragePool
from tests.graph_builder import GraphBuilder

if TYPE_CHECKING:
    from resnet_edge.graph import Graph

CLASSES = 3
CONTRACT = Preprocessing.parse("unit", channels=1, input_size=(6, 6))


def graph() -> Graph:
    """Three convolutions and a dense layer."""
    builder = GraphBuilder((6, 6, 1))
    x = builder.image
    for name in ("first", "second", "third"):
        x = builder.conv(x, 8, activation=Activation.RELU, name=name)
    return builder.graph(
        builder.dense(builder.add(GlobalAveragePool(), x, name="pool"), CLASSES, name="last")
    )


def dataset(count: int = 40, *, labelled: bool = True, seed: int = 0) -> Dataset:
    """Noise whose brightness is the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = random.integers(0, 60, (count, 6, 6, 1)) + 90 * labels[:, None, None, None]
    return Dataset(
        name="tiny",
        images=ArrayImages(array=pixels.astype(np.uint8)),
        preprocessing=CONTRACT,
        labels=labels.astype(np.int64) if labelled else None,
    )
