"""The scales and integers of a .tflite file, brought back to the graph's names and layout."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from resnet_edge.inspection.tflite_file import read_tflite, rejecting_damaged
from resnet_edge.quantization.readback import FileContent, StoredConstant, StoredTensor
from resnet_edge_converters.tflite_layout import from_stored, stored_channel_axis
from resnet_edge_converters.tflite_names import Names

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.inspection.tflite_file import Tensor
    from resnet_edge.quantization.spec import Quantized


def read_content(path: Path, quantized: Quantized) -> FileContent:
    """What a file holds of the tensors and constants that a spec names; what it lacks is left out.

    Raises:
        ModelRejectedError: The file cannot be read, is not TFLite, or is damaged.
    """
    stored = {
        tensor.name: (place, tensor) for place, tensor in enumerate(read_tflite(path).subgraphs[0].tensors)
    }
    names, spec = Names(quantized.graph, quantized.spec), quantized.spec
    activations = {node: stored.get(names.integer(node)) for node in spec.tensors}
    constants = {key: stored.get(names.constant(*key.rsplit("/", 1))) for key in spec.constants}
    with rejecting_damaged(path), path.open("rb") as file:
        model = schema.Model.GetRootAs(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), 0)
        return FileContent(
            tensors={
                node: _stored_tensor(found[1]) for node, found in activations.items() if found is not None
            },
            constants={
                key: _stored_constant(quantized.graph, key, found[1], _value(model, *found))
                for key, found in constants.items()
                if found is not None
            },
        )


def _stored_tensor(tensor: Tensor) -> StoredTensor:
    if tensor.quantization is None:
        raise ValueError(f"the tensor {tensor.name!r} has no scale")
    (scale,), (zero_point,) = tensor.quantization.scales, tensor.quantization.zero_points
    return StoredTensor(scale=scale, zero_point=zero_point)


def _stored_constant(graph: Graph, key: str, tensor: Tensor, value: NDArray[np.generic]) -> StoredConstant:
    node, role = key.rsplit("/", 1)
    op = graph.by_name[node].op
    array = from_stored(op, role, value)
    if tensor.quantization is None:
        return StoredConstant(array=array, scales=())
    if any(tensor.quantization.zero_points):
        raise ValueError(f"the constant {tensor.name!r} is not symmetric around zero")
    if tensor.quantization.axis not in (None, stored_channel_axis(op, role)):
        raise ValueError(f"the constant {tensor.name!r} has its scales along another dimension")
    return StoredConstant(array=array, scales=tensor.quantization.scales)


def _value(model: Any, place: int, tensor: Tensor) -> NDArray[np.generic]:
    """A constant's elements in its own shape."""
    buffer = model.Buffers(model.Subgraphs(0).Tensors(place).Buffer())
    value: NDArray[np.generic] = buffer.DataAsNumpy().view(tensor.dtype).reshape(tensor.shape)
    return value
