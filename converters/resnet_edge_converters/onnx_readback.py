"""The scales and integers of an .onnx file, brought back to the graph's names and layout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, numpy_helper

from resnet_edge.engines.onnx import QUANTIZATION_KEY
from resnet_edge.inspection.onnx_file import rejecting_damaged
from resnet_edge.quantization.readback import FileContent, StoredConstant, StoredTensor
from resnet_edge_converters.onnx_constants import (
    OUTPUT_SCALE,
    OUTPUT_ZERO_POINT,
    ZERO_POINT,
    ConstantLayout,
    free_name,
    scale_name,
    stored_name,
)
from resnet_edge_converters.onnx_types import moves_integers, signed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Node
    from resnet_edge.quantization.spec import Quantized


def read_content(path: Path, quantized: Quantized) -> FileContent:
    """What a file holds of the tensors and constants that a spec names; what it lacks is left out.

    Raises:
        ModelRejectedError: The file cannot be read, is not ONNX, or is damaged.
    """
    with rejecting_damaged(path):
        return _Reader(ModelProto.FromString(path.read_bytes()), quantized).content()


class _Reader:
    """A file's initializers by name, beside the graph that they belong to."""

    def __init__(self, model: ModelProto, quantized: Quantized) -> None:
        self._quantized = quantized
        self._graph = quantized.graph
        self._layout = ConstantLayout(quantized.graph)
        self._taken = {self._graph.tensor_name(node.name) for node in self._graph.nodes}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        self._border = json.loads(metadata.get(QUANTIZATION_KEY, "{}"))

    def content(self) -> FileContent:
        """All that is there."""
        spec = self._quantized.spec
        tensors: dict[str, StoredTensor] = {}
        for node in self._graph.nodes:
            if node.name in spec.tensors:
                found = self._stated(node) or self._handed_on(node, tensors)
                if found is not None:
                    tensors[node.name] = found
        constants = {key: self._constant(*key.rsplit("/", 1)) for key in spec.constants}
        return FileContent(
            tensors=tensors,
            constants={key: constant for key, constant in constants.items() if constant is not None},
        )

    def _stated(self, node: Node) -> StoredTensor | None:
        """What the file says of a node's integers.

        Raises:
            ValueError: It says two things.
        """
        found = set()
        scale, zero_point = (self._array(node.name, role) for role in (OUTPUT_SCALE, OUTPUT_ZERO_POINT))
        if scale is not None and zero_point is not None:
            found.add(StoredTensor(scale=float(scale), zero_point=signed(zero_point)))
        form = self._border.get(self._graph.tensor_name(node.name))
        if form is not None:
            zero = np.array(form["zero_point"], self._quantized.spec.io)
            found.add(StoredTensor(scale=float(form["scale"]), zero_point=signed(zero)))
        if len(found) > 1:
            raise ValueError(f"the metadata and the constants differ in what they say of {node.name!r}")
        return found.pop() if found else None

    def _handed_on(self, node: Node, tensors: Mapping[str, StoredTensor]) -> StoredTensor | None:
        """An operator that moves integers hands on what its input's stand for."""
        return tensors.get(node.inputs[0]) if node.inputs and moves_integers(node.op) else None

    def _constant(self, name: str, role: str) -> StoredConstant | None:
        key = f"{name}/{role}"
        quant, node = self._quantized.spec.constants[key], self._graph.by_name[name]
        stored = self._array(name, stored_name(role, quant.dtype))
        scales = self._array(name, scale_name(role)) if quant.scales else np.zeros(0, np.float32)
        if stored is None or scales is None:
            return None
        zero_point = self._array(name, ZERO_POINT)
        if role == "weight" and zero_point is not None and zero_point.any():
            raise ValueError(f"the constant {key!r} is not symmetric around zero")
        array = self._layout.from_stored(node, role, stored)
        return StoredConstant(array=array, scales=tuple(scales.reshape(-1).tolist()))

    def _array(self, node: str, role: str) -> NDArray[Any] | None:
        tensor = self._initializers.get(free_name(f"{node}/{role}", self._taken))
        return None if tensor is None else numpy_helper.to_array(tensor)
