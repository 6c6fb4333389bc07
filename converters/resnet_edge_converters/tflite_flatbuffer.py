"""A TFLite model under construction: tensors and operators go in, one flatbuffer file comes out.

Fills the classes that LiteRT generates from its schema (``schema.fbs``, version 3). Constants are copied
once, from the graph straight to their place in the file's bytes, so that writing needs about as much memory
as the file is large.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.errors import ConversionFailedError
from resnet_edge_converters.tflite_versions import kernel_version, minimum_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.inspection.report import Quantization

TensorId: TypeAlias = int
"""A tensor's index in the file."""

SIGNATURE = "serving_default"
"""Name of the one signature, as TensorFlow Serving and TFLite's own converter name it."""

ALIGNMENT = 16
"""Bytes to which the schema aligns constants (``force_align``): kernels load them as vectors."""

SIZE_LIMIT = 2**31 - 1
"""Offsets in a flatbuffer are signed 32-bit numbers."""

TABLE_BYTES = 1024
"""More than any table beside a constant takes: sizes the builder so that it never grows (and copies)."""


SCALE_BYTES = 12
"""What a channel's scale (float32) and zero point (int64) take."""


class _ConstantBuffer:
    """A buffer of the file; stands where the generated ``BufferT`` would, but aligns and copies only once."""

    def __init__(self, data: NDArray[Any]) -> None:
        self.data = data

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the name that the generated ModelT calls
        """Write the bytes, then the table; an empty buffer has no bytes at all."""
        vector = self._pack_data(builder) if self.data.size else None
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))

    def _pack_data(self, builder: Any) -> int:
        builder.StartVector(1, self.data.nbytes, ALIGNMENT)
        builder.head -= self.data.nbytes
        place = np.frombuffer(builder.Bytes, self.data.dtype, self.data.size, offset=builder.head)
        np.copyto(place.reshape(self.data.shape), self.data)
        return int(builder.EndVector())


class _Parameters:
    """A tensor's scales and zero points; stands where the generated ``QuantizationParametersT`` would.

    Most channels' zero points are zeros: equal lists are written once for the whole file.
    """

    def __init__(self, quantization: Quantization, written: dict[tuple[int, ...], int]) -> None:
        self._quantization = quantization
        self._written = written

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the name that the generated TensorT calls
        """Write the lists, then the table."""
        zero_points = self._quantization.zero_points
        scale = builder.CreateNumpyVector(np.array(self._quantization.scales, np.float32))
        if zero_points not in self._written:
            self._written[zero_points] = builder.CreateNumpyVector(np.array(zero_points, np.int64))
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scale)
        schema.QuantizationParametersAddZeroPoint(builder, self._written[zero_points])
        schema.QuantizationParametersAddQuantizedDimension(builder, self._quantization.axis or 0)
        return int(schema.QuantizationParametersEnd(builder))


class ModelBuilder:
    """Collects one subgraph's tensors and operators.

    Every tensor is made by :meth:`activation` or :meth:`constant`; both take their element type from NumPy.
    """

    def __init__(self, name: str) -> None:
        self._subgraph = schema.SubGraphT()
        self._subgraph.name = name
        self._subgraph.tensors = []
        self._subgraph.operators = []
        # By convention the first buffer is empty: the one of all tensors that are not constants.
        self._buffers = [_ConstantBuffer(np.empty(0, np.uint8))]
        self._dtypes: list[str] = []
        self._scales = 0
        self._zero_points: dict[tuple[int, ...], int] = {}
        self._alike: dict[tuple[str, tuple[int, ...], bytes], list[int]] = {}
        self._codes: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], TensorId] = {}

    def activation(
        self,
        name: str,
        shape: Sequence[int | None],
        dtype: str = "float32",
        quantization: Quantization | None = None,
    ) -> TensorId:
        """A tensor that is computed; None in ``shape`` is an open dimension."""
        extents = [1 if extent is None else extent for extent in shape]
        tensor = self._tensor(name, extents, dtype, quantization)
        if None in shape:
            signature = [-1 if extent is None else extent for extent in shape]
            tensor.shapeSignature = np.array(signature, np.int32)
        return len(self._subgraph.tensors) - 1

    def constant(self, name: str, value: NDArray[Any], quantization: Quantization | None = None) -> TensorId:
        """A tensor that is stored; ``value`` may be a transposed view, and is read only when written."""
        tensor = self._tensor(name, value.shape, value.dtype.name, quantization)
        tensor.buffer = self._buffer(value)
        return len(self._subgraph.tensors) - 1

    def shared_constant(self, name: str, value: NDArray[Any]) -> TensorId:
        """Like :meth:`constant`, but stored once for all equal values, under the first one's name."""
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant(name, value)
        return self._shared[key]

    def operator(
        self,
        builtin: str,
        inputs: Sequence[TensorId],
        output: TensorId,
        options: Any = None,
        *,
        version: int = 1,
    ) -> None:
        """Append an operator.

        Args:
            builtin: Name in the schema's ``BuiltinOperator``.
            inputs: Tensors in the operator's own order.
            output: The tensor it computes.
            options: The generated options object (``Conv2DOptionsT``, ...), where the operator has one.
            version: The least version of the operator that has these options; its tensors' types may need
                a higher one.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(builtin, len(self._codes))
        kernel = kernel_version(builtin, [self._dtypes[tensor] for tensor in [*inputs, output]])
        self._versions[builtin] = max(version, kernel, self._versions.get(builtin, 1))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        if options is not None:
            table = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = options
        self._subgraph.operators.append(operator)

    def write(
        self,
        destination: Path,
        *,
        description: str,
        inputs: Mapping[str, TensorId],
        outputs: Mapping[str, TensorId],
        metadata: Mapping[str, str],
    ) -> None:
        """Write the file; on failure nothing is left of it.

        Args:
            destination: The file to write.
            description: Who wrote it and what it is.
            inputs: The signature's inputs by name.
            outputs: The signature's outputs by name.
            metadata: Texts to keep in the file by name.

        Raises:
            ConversionFailedError: The model is larger than the format allows.
            OSError: The file cannot be written.
        """
        self._subgraph.inputs = np.array(list(inputs.values()), np.int32)
        self._subgraph.outputs = np.array(list(outputs.values()), np.int32)
        model = schema.ModelT()
        model.version = 3
        model.description = description
        model.operatorCodes = self._operator_codes()
        model.subgraphs = [self._subgraph]
        model.metadata = self._metadata(metadata)
        model.signatureDefs = [_signature(inputs, outputs)]
        model.buffers = self._buffers
        self._zero_points.clear()
        packed = _pack(model, self._capacity())
        try:
            destination.write_bytes(packed)
        except BaseException:
            destination.unlink(missing_ok=True)
            raise

    def _capacity(self) -> int:
        """Bytes that surely hold the file."""
        constants = sum(buffer.data.nbytes + ALIGNMENT for buffer in self._buffers)
        tables = len(self._buffers) + len(self._subgraph.tensors) + len(self._subgraph.operators)
        return constants + SCALE_BYTES * self._scales + TABLE_BYTES * (tables + 16)

    def _tensor(self, name: str, shape: Sequence[int], dtype: str, quantization: Quantization | None) -> Any:
        tensor = schema.TensorT()
        tensor.name = name
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.hasRank = True
        if quantization is not None:
            tensor.quantization = _Parameters(quantization, self._zero_points)
            self._scales += len(quantization.scales)
        self._dtypes.append(dtype)
        self._subgraph.tensors.append(tensor)
        return tensor

    def _buffer(self, data: NDArray[Any]) -> int:
        """The buffer with these bytes: an equal one that is there already, or a new one."""
        # The first elements tell nearly all weights apart, so that hardly any are compared in full.
        alike = self._alike.setdefault((data.dtype.name, data.shape, data.flat[:16].tobytes()), [])
        for index in alike:
            if np.array_equal(self._buffers[index].data, data):
                return index
        alike.append(len(self._buffers))
        self._buffers.append(_ConstantBuffer(data))
        return alike[-1]

    def _operator_codes(self) -> list[Any]:
        codes = []
        for builtin in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, builtin)
            # Runtimes from before the field above grew to 32 bits read this one; 127 sends newer ones there.
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = self._versions[builtin]
            codes.append(code)
        return codes

    def _metadata(self, texts: Mapping[str, str]) -> list[Any]:
        runtime = minimum_runtime(self._versions)
        entries = []
        # TFLite reads the runtime version from 16 bytes, filled up with zeros.
        contents = {"min_runtime_version": runtime.encode().ljust(16, b"\0")}
        contents |= {name: text.encode() for name, text in texts.items()}
        for name, content in contents.items():
            entry = schema.MetadataT()
            entry.name = name
            entry.buffer = self._buffer(np.frombuffer(content, np.uint8))
            entries.append(entry)
        return entries


def _signature(inputs: Mapping[str, TensorId], outputs: Mapping[str, TensorId]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = [_tensor_map(name, tensor) for name, tensor in inputs.items()]
    signature.outputs = [_tensor_map(name, tensor) for name, tensor in outputs.items()]
    return signature


def _tensor_map(name: str, tensor: TensorId) -> Any:
    entry = schema.TensorMapT()
    entry.name = name
    entry.tensorIndex = tensor
    return entry


def _pack(model: Any, capacity: int) -> memoryview:
    """The file's bytes: a view of the builder's, not a copy."""
    if capacity > SIZE_LIMIT:
        raise ConversionFailedError(
            "the model is too large for a .tflite file",
            where=model.subgraphs[0].name,
            found=f"{math.ceil(capacity / 2**20):,} MiB",
            allowed=f"less than {(SIZE_LIMIT + 1) // 2**20:,} MiB",
            next_step="choose a narrower or shallower model, or another format",
        )
    builder = flatbuffers.Builder(capacity)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]
