"""Reads an .onnx file as far as a report needs it: every tensor's type and shape, no weight's values.

Files come from anywhere, so nothing in them is trusted: damage of any kind becomes one error, and external
data, which a file can place anywhere, is measured but never opened, and only inside the file's own folder.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    inliner,
    numpy_helper,
)

from resnet_edge.errors import ModelRejectedError
from resnet_edge.inspection.onnx_shapes import graphs_in, infer_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.inspection.report import Extent

SMALL = 64
"""Elements up to which a constant can be a shape, a scale or an axis, which decide the shapes of others."""

EXTERNAL = TensorProto.EXTERNAL


@dataclass(frozen=True, kw_only=True)
class OnnxTensor:
    """What is known of a tensor.

    Attributes:
        dtype: NumPy's name of the element type; empty where it is unknown.
        shape: All dimensions; None where not even their number is known.
    """

    dtype: str = ""
    shape: tuple[Extent, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """An .onnx file without its weights' values.

    Attributes:
        size: Bytes, external data included where it is known.
        model: The model; its main graph has no constants left but the small ones.
        nodes: All operators, those in the bodies of loops and branches included.
        tensors: Types and shapes by name, constants included.
        constants: Names of the tensors with fixed values.
        values: The values of the small constants.
        notes: What to know about the file's data and shapes.
    """

    size: int
    model: ModelProto
    nodes: tuple[NodeProto, ...]
    tensors: Mapping[str, OnnxTensor]
    constants: frozenset[str]
    values: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def tensor(self, name: str) -> OnnxTensor:
        """What is known of the tensor ``name``."""
        return self.tensors.get(name, OnnxTensor())


def read_onnx(path: Path) -> OnnxFile:
    """Read a file.

    Raises:
        ModelRejectedError: The file cannot be read, is not ONNX, or is damaged.
    """
    with rejecting_damaged(path):
        model = ModelProto.FromString(path.read_bytes())
        if not model.ir_version or not model.opset_import or not model.graph.node:
            raise ValueError("it holds no graph of operators")
        constants = [tensor for graph in graphs_in(model.graph) for tensor in _constants(graph)]
        values = {item.name: numpy_helper.to_array(item) for item in constants if _is_small(item)}
        external, external_size = _measure_external(constants, path.resolve().parent)
        described = [_described(tensor) for tensor in constants]
        _drop_large(model.graph)
        if model.functions:
            model = inliner.inline_local_functions(model)
        inferred, unknown_shapes = infer_shapes(model)
        return OnnxFile(
            size=path.stat().st_size + external_size,
            model=model,
            nodes=tuple(node for graph in graphs_in(model.graph) for node in graph.node),
            tensors={value.name: tensor_of(value) for value in (*inferred, *described)},
            constants=frozenset(tensor.name for tensor in constants),
            values=values,
            notes=(*external, *unknown_shapes),
        )


@contextmanager
def rejecting_damaged(path: Path) -> Iterator[None]:
    """Turn what is raised where a length, a number, a type or a text is wrong into one clear error."""
    try:
        yield
    except (DecodeError, OSError, ValueError, LookupError, TypeError, OverflowError, RuntimeError) as error:
        raise ModelRejectedError(
            "the file cannot be read as an ONNX model",
            where=str(path),
            found=str(error),
            allowed="a complete .onnx file",
            next_step="copy or export the file again; compare its size with the original's",
        ) from error


def tensor_of(value: ValueInfoProto) -> OnnxTensor:
    """A declared tensor's type and shape."""
    declared = value.type.tensor_type
    if not declared.elem_type:
        return OnnxTensor()
    dtype = dtype_name(declared.elem_type)
    if not declared.HasField("shape"):
        return OnnxTensor(dtype=dtype)
    extents = declared.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in extents)
    return OnnxTensor(dtype=dtype, shape=shape)


def dtype_name(elem_type: int) -> str:
    """NumPy's name of an element type."""
    if elem_type == TensorProto.STRING:
        return "str"
    return helper.tensor_dtype_to_np_dtype(elem_type).name


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    """A graph's constants, whether listed or made by an operator ``Constant``."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    attribute.t.name = node.output[0]
                    yield attribute.t


def _is_small(tensor: TensorProto) -> bool:
    return math.prod(tensor.dims) <= SMALL and tensor.data_location != EXTERNAL


def _described(tensor: TensorProto) -> ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))


def _drop_large(graph: GraphProto) -> None:
    """Let the main graph's large constants become inputs: their type and shape is all that is needed."""
    declared = {value.name for value in graph.input}
    large = [tensor for tensor in graph.initializer if not _is_small(tensor)]
    graph.input.extend(_described(tensor) for tensor in large if tensor.name not in declared)
    small = [tensor for tensor in graph.initializer if _is_small(tensor)]
    del graph.initializer[:]
    graph.initializer.extend(small)


def _measure_external(constants: Iterable[TensorProto], folder: Path) -> tuple[list[str], int]:
    """Notes on constants that are kept in other files, and those files' size."""
    locations = {
        entry.value
        for tensor in constants
        if tensor.data_location == EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    notes, size = [], 0
    for location in sorted(locations):
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            notes.append(f"weights are said to be outside the file's folder, in {location}: not followed")
        elif path.is_file():
            size += path.stat().st_size
            notes.append(f"weights are in {location}, {path.stat().st_size:,} bytes")
        else:
            notes.append(f"weights are missing: there is no {location} beside the file")
    return notes, size
