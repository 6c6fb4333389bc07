"""Everything runs first and outputs go to disk; comparing comes later: data may be larger than memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np

from resnet_edge.errors import ConversionFailedError, RunnerUnreachableError
from resnet_edge.verification.metrics import chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.data.datasets import Dataset

Name = TypeVar("Name")
"""Whatever models are told apart by."""

BLOCK_BYTES = 32 * 2**20
"""Model inputs in memory at a time. A model gets a whole block before the next one's turn: runtimes keep
their threads spinning for a while after a run, which would slow down the next runtime's first images."""

Compute: TypeAlias = "Callable[[NDArray[np.float32]], NDArray[np.float32]]"
"""Model inputs (n, height, width, channels) to outputs (n, classes)."""


@dataclass(frozen=True, kw_only=True)
class Outputs(Generic[Name]):
    """What several models computed on the same images.

    Attributes:
        arrays: Outputs (N, classes) by model; on disk.
        lost: Models that stopped answering on the way, with what they said last.
    """

    arrays: Mapping[Name, NDArray[np.float32]]
    lost: Mapping[Name, RunnerUnreachableError]


def run_all(
    models: Mapping[Name, Compute],
    dataset: Dataset,
    *,
    classes: int,
    folder: Path,
    progress: Callable[[int], None],
) -> Outputs[Name]:
    """Send every image through every model; each is decoded once.

    Args:
        models: By whatever they are called.
        dataset: The images; at least one.
        classes: Outputs an image.
        folder: For the outputs, which are files there.
        progress: Is told how many images are done.

    Raises:
        DataRejectedError: An image cannot be used, or does not fit a model.
        ConversionFailedError: There is no room for the outputs.
    """
    shape = len(dataset), classes
    arrays = {key: _on_disk(folder / f"{number}.npy", shape) for number, key in enumerate(models)}
    lost: dict[Name, RunnerUnreachableError] = {}
    done = 0
    for block in _blocks(dataset):
        for key, compute in models.items():
            if key in lost:
                continue
            try:
                arrays[key][done : done + len(block)] = compute(block)
            except RunnerUnreachableError as error:
                lost[key] = error
        done += len(block)
        progress(done)
    return Outputs(arrays={key: array for key, array in arrays.items() if key not in lost}, lost=lost)


def _on_disk(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Zeros (N, classes) in a file of their own.

    Raises:
        ConversionFailedError: There is no room for them.
    """
    try:
        # Really written: where a hole in a mapped file meets a full disk, the process is killed.
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
            for rows in chunks(*shape):
                file.write(bytes(4 * (rows.stop - rows.start) * shape[1]))
    except OSError as error:
        raise ConversionFailedError(
            "there is no room for the outputs",
            where=str(path.parent),
            found=error.strerror or str(error),
            next_step="free some space, or let TMPDIR name a folder with more; --samples takes fewer images",
        ) from error
    outputs: NDArray[np.float32] = np.load(path, mmap_mode="r+")
    return outputs


def _blocks(dataset: Dataset) -> Iterator[NDArray[np.float32]]:
    """Model inputs, as many as fit into a block."""
    height, width = dataset.preprocessing.input_size
    size = height * width * dataset.preprocessing.channels * np.dtype(np.float32).itemsize
    return dataset.batches(size=max(1, BLOCK_BYTES // size))
