"""What calibration has seen: the numbers that scales are chosen from, and their place in the bundle."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ModelRejectedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph

SCHEMA = 2
"""Raised when the same graph, images and observer give other numbers than before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """What every tensor of a graph held while calibration images went through it, by node name.

    Attributes:
        ranges: (low, high) that the observer holds worth representing; always contains zero.
        observed: Smallest and largest value seen.
        channel_means: Mean over images and positions, float32 (channels,).
        images: How many images were seen.
    """

    ranges: Mapping[str, tuple[float, float]]
    observed: Mapping[str, tuple[float, float]]
    channel_means: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    images: int

    def save(self, path: Path) -> None:
        """Write the numbers as ``.npz``, the same bytes for the same numbers.

        Raises:
            OSError: The file cannot be written.
        """
        names = list(self.ranges)
        means = [self.channel_means[name] for name in names if name in self.channel_means]
        np.savez(
            path,
            schema=SCHEMA,
            images=self.images,
            names=np.array(names, dtype=np.str_),
            ranges=np.array([self.ranges[name] for name in names], np.float64).reshape(-1, 2),
            observed=np.array([self.observed[name] for name in names], np.float64).reshape(-1, 2),
            channels=np.array(
                [self.channel_means[name].size if name in self.channel_means else 0 for name in names],
                np.int64,
            ),
            means=np.concatenate([np.zeros(0, np.float32), *means]),
        )

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """The numbers that :meth:`save` wrote.

        Raises:
            ModelRejectedError: The file is damaged, or of another schema.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return _parse(file)
        except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ModelRejectedError(
                "the calibration statistics cannot be read",
                where=str(path),
                found=str(error),
                next_step="delete the file; the next run calibrates again",
            ) from error


def _parse(file: Mapping[str, NDArray[np.generic]]) -> Statistics:
    """The statistics in an opened file.

    Raises:
        KeyError: An array is missing.
        ValueError: The arrays do not fit each other, or the schema is another.
    """
    schema, names = int(file["schema"]), [str(name) for name in file["names"]]
    if schema != SCHEMA:
        raise ValueError(f"schema {schema}, not {SCHEMA}")
    means = np.split(file["means"].astype(np.float32), np.cumsum(file["channels"])[:-1])
    return Statistics(
        ranges=_pairs(names, file["ranges"]),
        observed=_pairs(names, file["observed"]),
        channel_means={name: mean for name, mean in zip(names, means, strict=True) if mean.size},
        images=int(file["images"]),
    )


def _pairs(names: list[str], limits: NDArray[np.generic]) -> dict[str, tuple[float, float]]:
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, limits, strict=True)}


def statistics_key(graph: Graph, data: str, observer: str) -> str:
    """The name under which a bundle keeps statistics: equal if and only if they would come out equal.

    Args:
        graph: The graph that calibration runs; every attribute and every weight counts.
        data: Digest of the model inputs (``Dataset.digest`` with the images' positions).
        observer: The observer with its settings.

    Returns:
        SHA-256 in hexadecimal.
    """
    total = hashlib.sha256(f"{SCHEMA}\0{data}\0{observer}\0{graph.output}\n".encode())
    for node in graph.nodes:
        weights = node.op.weights()
        attributes = {name: value for name, value in vars(node.op).items() if name not in weights}
        total.update(f"{node.name}\0{node.inputs}\0{type(node.op).__name__}\0{attributes}\n".encode())
        for name, weight in weights.items():
            total.update(f"{name}\0{weight.shape}\0{weight.dtype}\n".encode())
            total.update(np.ascontiguousarray(weight).data)
    return total.hexdigest()
