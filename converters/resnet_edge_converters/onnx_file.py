"""Streams an ONNX file to disk, one constant at a time.

``ModelProto.SerializeToString`` needs the weights three times in memory: in the graph, in the message and in
the bytes. Here a constant goes from its array to the file directly; the rest of the model, some kilobytes, is
a message without constants. What is written is byte for byte what ``SerializeToString`` would have given:
fields in the order of their numbers, and the constants (``TensorProto.raw_data``) in between.

Format: "Encoding" in the Protocol Buffers documentation, field numbers from ``onnx.proto``.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from resnet_edge.errors import ConversionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LIMIT = 2**31 - 1
"""Bytes that a protobuf message can have at most."""

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_LENGTH_DELIMITED = 2

_MessageT = TypeVar("_MessageT", ModelProto, GraphProto)


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """An initializer to be: a name and an array, which may be a view in any order of memory."""

    name: str
    array: NDArray[Any]

    def header(self) -> bytes:
        """Its TensorProto up to the data: shape, type, name, and the data's length."""
        tensor = TensorProto(
            dims=self.array.shape,
            data_type=helper.np_dtype_to_tensor_dtype(self.array.dtype),
            name=self.name,
        )
        return _serialized(tensor) + _prefix(_TENSOR_RAW_DATA, self.array.nbytes)


def write_model(model: ModelProto, constants: Sequence[Constant], destination: Path) -> None:
    """Write ``model``, whose graph has no initializers, with ``constants`` as its initializers.

    On failure nothing is left of the file.

    Raises:
        ConversionFailedError: The file would be larger than a protobuf message can be.
        OSError: The file cannot be written.
    """
    headers = [constant.header() for constant in constants]
    lengths = [len(head) + item.array.nbytes for head, item in zip(headers, constants, strict=True)]
    prefixes = [_prefix(_GRAPH_INITIALIZER, length) for length in lengths]
    nodes, interface = _split(model.graph, _GRAPH_INITIALIZER)
    graph_size = len(nodes) + sum(map(len, prefixes)) + sum(lengths) + len(interface)
    start, end = _split(model, _MODEL_GRAPH)
    graph_prefix = _prefix(_MODEL_GRAPH, graph_size)
    _check_size(len(start) + len(graph_prefix) + graph_size + len(end))
    with _new_file(destination) as file:
        file.writelines([start, graph_prefix, nodes])
        for prefix, header, constant in zip(prefixes, headers, constants, strict=True):
            file.writelines([prefix, header, np.ascontiguousarray(constant.array).data])
        file.writelines([interface, end])


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that did not exist before, and does not afterwards if writing it fails."""
    with path.open("xb") as file:
        try:
            yield file
            file.flush()
        except BaseException:
            path.unlink()
            raise


def _check_size(size: int) -> None:
    if size > LIMIT:
        raise ConversionFailedError(
            "the model is too large for one ONNX file",
            found=f"{size:,} bytes",
            allowed=f"{LIMIT:,} bytes, the limit of the format",
            next_step="export it as TFLite or SavedModel, or shrink the model",
        )


def _split(message: _MessageT, number: int) -> tuple[bytes, bytes]:
    """The fields below and above the field ``number``, serialized."""
    below, above = type(message)(), type(message)()
    below.CopyFrom(message)
    above.CopyFrom(message)
    for field, _ in message.ListFields():
        if field.number >= number:
            below.ClearField(field.name)
        if field.number <= number:
            above.ClearField(field.name)
    return _serialized(below), _serialized(above)


def _serialized(message: ModelProto | GraphProto | TensorProto) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _prefix(number: int, length: int) -> bytes:
    """What stands before ``length`` bytes of a field: its tag and the length as varints."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    """Base 128, lowest digits first, the top bit set on all bytes but the last."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
