"""How a file's weights compress: their zeros, their distinct values, and the file's size under gzip."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ModelRejectedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.inspection.files import FileFormat

_DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8}
"""Element types that weights have."""

_PIECE = 2**20


@dataclass(frozen=True, kw_only=True)
class WeightFigures:
    """One tensor of weights.

    Attributes:
        size: Number of elements.
        zeros: How many of them are zero.
        distinct: How many values occur.
    """

    size: int
    zeros: int
    distinct: int

    @classmethod
    def of(cls, weight: NDArray[np.generic]) -> WeightFigures:
        """The figures of an array."""
        nonzero = int(np.count_nonzero(weight))
        return cls(size=weight.size, zeros=weight.size - nonzero, distinct=len(np.unique(weight)))


def weight_figures(path: Path, kind: FileFormat) -> tuple[WeightFigures, ...]:
    """The weights in a file: constants of two dimensions or more, of a type that weights have.

    Raises:
        ModelRejectedError: The file cannot be read, or is damaged.
    """
    arrays = _tflite_weights(path) if kind == "tflite" else _onnx_weights(path)
    return tuple(WeightFigures.of(array) for array in arrays)


def gzip_size(path: Path) -> int:
    """Bytes of the file as gzip packs it by default, without its header.

    Raises:
        ModelRejectedError: The file cannot be read.
    """
    packer, total = zlib.compressobj(), 0
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                total += len(packer.compress(piece))
    except OSError as error:
        raise ModelRejectedError(
            "the file cannot be read", where=str(path), found=error.strerror or str(error)
        ) from error
    return total + len(packer.flush())


def _tflite_weights(path: Path) -> Iterator[NDArray[np.generic]]:
    from ai_edge_litert import schema_py_generated as schema

    from resnet_edge.inspection.tflite_file import read_tflite, rejecting_damaged

    file = read_tflite(path)
    with rejecting_damaged(path):
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        graph = model.Subgraphs(0)
        for place, tensor in enumerate(file.subgraphs[0].tensors):
            shape = [extent for extent in tensor.shape if extent is not None]
            if tensor.constant and tensor.dtype in _DTYPES and len(shape) >= 2:
                data = model.Buffers(graph.Tensors(place).Buffer()).DataAsNumpy()
                values = np.frombuffer(bytes(data), _DTYPES[tensor.dtype])
                if values.size != math.prod(shape):
                    raise ValueError(f"tensor {tensor.name!r} has {values.size} values for the shape {shape}")
                yield values


def _onnx_weights(path: Path) -> Iterator[NDArray[np.generic]]:
    import onnx
    from onnx import numpy_helper

    from resnet_edge.inspection.onnx_file import rejecting_damaged

    with rejecting_damaged(path):
        for tensor in onnx.load(str(path)).graph.initializer:
            if len(tensor.dims) >= 2:
                array = numpy_helper.to_array(tensor)
                if array.dtype.name in _DTYPES:
                    yield array
