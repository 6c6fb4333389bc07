"""The structure of a .tflite file, read with distrust: any tool may have written it, or cut it short.

LiteRT's generated classes follow the offsets and lengths that the file states. An offset to somewhere outside
the file fails by itself, but a wrong length could make a small file look like billions of tensors; so all
that is read is counted, and may not be more than twice the file.
"""

from __future__ import annotations

import mmap
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ai_edge_litert import schema_py_generated as schema

from resnet_edge.errors import ModelRejectedError
from resnet_edge.inspection.report import Quantization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Item = TypeVar("Item")

IDENTIFIER = b"TFL3"

MAX_RANK = 32
"""No tensor has more dimensions; a longer shape is the sign of a damaged file."""

_DTYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_BUILTINS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """A tensor as the file describes it; equal only to itself.

    Attributes:
        name: In the graph.
        shape: All dimensions; None where one is open.
        dtype: NumPy's name of the element type.
        quantization: None for real numbers.
        constant: Whether the file holds its value.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: Quantization | None
    constant: bool


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator with its tensors; None stands for an optional input that is left out."""

    name: str
    custom: bool
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """A graph of the file; inputs and outputs are places in ``tensors``."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TFLiteFile:
    """What a .tflite file says about itself.

    Attributes:
        size: Bytes.
        schema_version: Of the format.
        description: By the tool that wrote it.
        subgraphs: The main one first; never empty.
        signature: The main subgraph's inputs and outputs by place: the names that callers use. Empty where
            the file has none.
        metadata: Entries by name.
    """

    size: int
    schema_version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    signature: Mapping[int, str]
    metadata: Mapping[str, bytes]


def read_tflite(path: Path) -> TFLiteFile:
    """Read the structure of a .tflite file, and none of its weights.

    Raises:
        ModelRejectedError: The file cannot be read, is not TFLite, or is damaged.
    """
    with rejecting_damaged(path), path.open("rb") as file:
        start = file.read(8)
        if start[4:] != IDENTIFIER:
            raise ValueError(f"bytes 4 to 8 are {start[4:]!r} instead of {IDENTIFIER!r}")
        return _Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).file()


@contextmanager
def rejecting_damaged(path: Path) -> Iterator[None]:
    """Turn what is raised where an offset, a length, a number or a text is wrong into one clear error."""
    try:
        yield
    except (OSError, struct.error, ValueError, IndexError, TypeError, OverflowError) as error:
        raise ModelRejectedError(
            "the file cannot be read as a TFLite model",
            where=str(path),
            found=str(error),
            allowed="a complete .tflite file",
            next_step="copy or export the file again; compare its size with the original's",
        ) from error


class _Reader:
    """Walks through one file, with an allowance of twice the bytes that the file has.

    Twice, because tensors may share a list of zero points, which is read for each of them.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._size = len(data)
        self._allowance = 2 * self._size
        self._model = schema.Model.GetRootAs(data, 0)
        self._buffers = self._all(self._model.BuffersLength(), self._model.Buffers)
        codes = self._all(self._model.OperatorCodesLength(), self._model.OperatorCodes)
        self._codes = [self._operator_name(code) for code in codes]

    def file(self) -> TFLiteFile:
        subgraphs = self._all(self._model.SubgraphsLength(), self._model.Subgraphs)
        if not subgraphs:
            raise ValueError("it holds no graph")
        return TFLiteFile(
            size=self._size,
            schema_version=self._model.Version(),
            description=self._text(self._model.Description()),
            subgraphs=tuple(self._subgraph(subgraph) for subgraph in subgraphs),
            signature=self._signature(),
            metadata={
                self._text(entry.Name()): self._content(entry.Buffer())
                for entry in self._all(self._model.MetadataLength(), self._model.Metadata)
            },
        )

    def _all(self, length: int, item: Callable[[int], Item]) -> list[Item]:
        """Every element of a list."""
        self._spend(4 * length)
        return [item(index) for index in range(length)]

    def _numbers(self, length: int, values: Callable[[], Any]) -> list[Any]:
        """Every element of a list of numbers."""
        self._spend(4 * length)
        numbers: list[Any] = values().tolist() if length else []
        return numbers

    def _text(self, value: bytes | None) -> str:
        self._spend(len(value or b""))
        return (value or b"").decode("utf-8", "replace")

    def _content(self, index: int) -> bytes:
        """The bytes of a buffer."""
        buffer = self._buffers[index]
        self._spend(buffer.DataLength())
        return bytes(buffer.DataAsNumpy()) if buffer.DataLength() else b""

    def _spend(self, size: int) -> None:
        self._allowance -= size
        if self._allowance < 0:
            raise ValueError("its lists and texts are longer than the file can hold")

    def _subgraph(self, subgraph: Any) -> Subgraph:
        tensors = tuple(map(self._tensor, self._all(subgraph.TensorsLength(), subgraph.Tensors)))
        operators = self._all(subgraph.OperatorsLength(), subgraph.Operators)
        inputs = self._numbers(subgraph.InputsLength(), subgraph.InputsAsNumpy)
        outputs = self._numbers(subgraph.OutputsLength(), subgraph.OutputsAsNumpy)
        if not all(0 <= place < len(tensors) for place in [*inputs, *outputs]):
            raise ValueError("its inputs or outputs are not among its tensors")
        return Subgraph(
            tensors=tensors,
            operators=tuple(self._operator(operator, tensors) for operator in operators),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
        )

    def _tensor(self, tensor: Any) -> Tensor:
        # The signature keeps the open dimensions, which stand as 1 in the shape.
        shape = self._numbers(tensor.ShapeSignatureLength(), tensor.ShapeSignatureAsNumpy)
        shape = shape or self._numbers(tensor.ShapeLength(), tensor.ShapeAsNumpy)
        if len(shape) > MAX_RANK or min(shape, default=0) < -1:
            raise ValueError(f"a tensor has the shape {shape[:MAX_RANK]}")
        return Tensor(
            name=self._text(tensor.Name()),
            shape=tuple(None if extent == -1 else extent for extent in shape),
            dtype=_DTYPES.get(tensor.Type(), f"type_{tensor.Type()}"),
            quantization=self._quantization(tensor.Quantization()),
            constant=_holds_data(self._buffers[tensor.Buffer()]),
        )

    def _quantization(self, parameters: Any) -> Quantization | None:
        if parameters is None or not parameters.ScaleLength():
            return None
        scales = self._numbers(parameters.ScaleLength(), parameters.ScaleAsNumpy)
        zero_points = self._numbers(parameters.ZeroPointLength(), parameters.ZeroPointAsNumpy)
        return Quantization(
            scales=tuple(scales),
            zero_points=tuple(zero_points),
            axis=parameters.QuantizedDimension() if len(scales) > 1 else None,
        )

    def _operator(self, operator: Any, tensors: tuple[Tensor, ...]) -> Operator:
        name, custom = self._codes[operator.OpcodeIndex()]
        inputs = self._numbers(operator.InputsLength(), operator.InputsAsNumpy)
        outputs = self._numbers(operator.OutputsLength(), operator.OutputsAsNumpy)
        if min(inputs + outputs, default=0) < -1:
            raise ValueError(f"an operator {name} has a negative tensor number")
        return Operator(
            name=name,
            custom=custom,
            inputs=tuple(None if place == -1 else tensors[place] for place in inputs),
            outputs=tuple(None if place == -1 else tensors[place] for place in outputs),
        )

    def _signature(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for signature in self._all(self._model.SignatureDefsLength(), self._model.SignatureDefs):
            if signature.SubgraphIndex() == 0 and not names:
                entries = self._all(signature.InputsLength(), signature.Inputs)
                entries += self._all(signature.OutputsLength(), signature.Outputs)
                names = {entry.TensorIndex(): self._text(entry.Name()) for entry in entries}
        return names

    def _operator_name(self, code: Any) -> tuple[str, bool]:
        """An operator's name, and whether it is custom."""
        # Files from before the number outgrew a byte have it in the first field, newer ones in the second.
        builtin = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        if builtin == schema.BuiltinOperator.CUSTOM:
            return self._text(code.CustomCode()), True
        return _BUILTINS.get(builtin, f"BUILTIN_{builtin}"), False


def _holds_data(buffer: Any) -> bool:
    if buffer.DataLength():
        buffer.DataAsNumpy()  # a view; fails where the data would reach beyond the end of the file
        return True
    # In models beyond two gigabytes a buffer lies behind the flatbuffer, and states its size only.
    return bool(buffer.Size())
