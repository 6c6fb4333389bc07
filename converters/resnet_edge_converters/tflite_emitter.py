"""How a node of the graph reaches its tensors in the TFLite model under construction."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph.operators import Activation, DepthwiseConv2D
from resnet_edge.inspection.report import Quantization
from resnet_edge.passes.signs import nonnegative
from resnet_edge_converters.tflite_layout import stored_channel_axis, to_stored
from resnet_edge_converters.tflite_names import Names

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Shape
    from resnet_edge.quantization.spec import ConstantQuant, Quantized, TensorQuant
    from resnet_edge_converters.tflite_flatbuffer import ModelBuilder, TensorId

FUSED = {
    Activation.NONE: schema.ActivationFunctionType.NONE,
    Activation.RELU: schema.ActivationFunctionType.RELU,
    Activation.RELU6: schema.ActivationFunctionType.RELU6,
}
"""The activations that an operator can carry."""


class Emitter:
    """The graph, the model that it becomes, and the tensors of the nodes that are already in it.

    All tensors of images, features and weights are made here, so these methods are the one place that decides
    how real numbers are stored: as the spec says, and in float32 where it says nothing. A tensor may be there
    in both forms, with a conversion in between, where an integer node meets a float one.
    """

    def __init__(self, quantized: Quantized, model: ModelBuilder, batch: int | None) -> None:
        self.graph: Graph = quantized.graph
        self.spec = quantized.spec
        self.model = model
        self.batch = batch
        self.names = Names(quantized.graph, quantized.spec)
        self._quantized = quantized
        self._floats: dict[str, TensorId] = {}
        self._integers: dict[str, TensorId] = {}

    def is_integer(self, node: Node) -> bool:
        """Whether a node is computed in integers."""
        return self._quantized.is_integer(node.name)

    def is_hybrid(self, node: Node) -> bool:
        """Whether a float node has integer weights: its kernel quantizes the features as they come."""
        quant = self.spec.constants.get(f"{node.name}/weight")
        return not self.is_integer(node) and quant is not None and quant.dtype == "int8"

    def is_per_channel(self, node: Node) -> bool:
        """Whether a node's weight has a scale for each of several channels."""
        quant = self.spec.constants.get(f"{node.name}/weight")
        return quant is not None and len(quant.scales) > 1

    def result(self, node: Node) -> TensorId:
        """Make the tensor that a node computes, under the name that it has in every format."""
        return self.integer_result(node) if self.is_integer(node) else self.float_result(node)

    def float_result(self, node: Node) -> TensorId:
        """Make the tensor of a node that is computed in float."""
        tensor = self.model.activation(self.names.computed(node.name), self._batched(node.name))
        self._floats[node.name] = tensor
        return tensor

    def integer_result(self, node: Node) -> TensorId:
        """Make the integer tensor of a node."""
        quant = self.spec.tensors[node.name]
        tensor = self.model.activation(
            self.names.integer(node.name), self._batched(node.name), quant.dtype, _per_tensor(quant)
        )
        self._integers[node.name] = tensor
        return tensor

    def settle(self, node: Node) -> None:
        """Quantize what a float node computed, if the spec has a scale for it."""
        if node.name in self.spec.tensors and node.name not in self._integers:
            computed = self._floats.pop(node.name)
            self.model.operator("QUANTIZE", [computed], self.integer_result(node), schema.QuantizeOptionsT())

    def between(self, node: Node, role: str, shape: Shape) -> TensorId:
        """Make a tensor between two of the operators that a node becomes; integers keep the input's scale."""
        name, extents = self.names.part(node.name, role), (self.batch, *shape)
        if not self.is_integer(node):
            return self.model.activation(name, extents)
        quant = self.spec.tensors[node.inputs[0]]
        return self.model.activation(name, extents, quant.dtype, _per_tensor(quant))

    def constant(self, node: Node, role: str, *, rank: int | None = None) -> TensorId:
        """Make a node's weight or bias, in TFLite's layout and in the type that the spec gives it.

        Args:
            node: The node.
            role: Which of its operator's constants.
            rank: Number of dimensions, if more than the layout has: those in front have the extent 1.
        """
        key, name = f"{node.name}/{role}", self.names.constant(node.name, role)
        quant = self.spec.constants.get(key)
        given = node.op.weights()[role] if quant is None else self._quantized.constants[key]
        value = to_stored(node.op, role, given)
        if rank is not None:
            value = value.reshape((1,) * (rank - value.ndim) + value.shape)
        if quant is None:
            return self.model.constant(name, value)
        axis = stored_channel_axis(node.op, role)
        tensor = self.model.constant(name, value, _per_channel(quant, axis))
        if self._is_stored_only(node, quant):
            return self._unpacked(node, role, tensor, value.shape)
        return tensor

    def weight(self, node: Node, role: str, value: NDArray[np.float32]) -> TensorId:
        """Make a constant of real numbers that is float32 in every precision."""
        return self.model.constant(self.names.part(node.name, role), value)

    def number(self, node: Node, role: str, value: float) -> TensorId:
        """Make a float32 constant of one real number."""
        return self.model.shared_constant(self.names.part(node.name, role), np.array(value, np.float32))

    def exact(self, node: Node, role: str, integers: NDArray[np.int64], scale: float) -> TensorId:
        """Make a constant that ``scale * integers`` gives exactly, in the type of the node's input.

        Raises:
            ConversionFailedError: The type cannot hold the integers.
        """
        name = self.names.part(node.name, role)
        if not self.is_integer(node):
            return self.model.constant(name, (integers * scale).astype(np.float32))
        dtype = np.dtype(self.spec.tensors[node.inputs[0]].dtype)
        if integers.max() > np.iinfo(dtype).max:
            raise ConversionFailedError(
                f"the {role} factors of this operator do not fit into {dtype.name}",
                where=node.source or node.name,
                found=f"multiples of {scale:.3g} up to {integers.max() * scale:.3g}",
                allowed=f"at most {np.iinfo(dtype).max} multiples",
                next_step=f"keep it in float: --override '{node.name}=float'",
            )
        return self.model.constant(
            name, integers.astype(dtype), Quantization(scales=(scale,), zero_points=(0,))
        )

    def lowest(self, node: Node) -> TensorId:
        """Make a constant that nothing in the node's input is less than."""
        if not self.is_integer(node):
            return self.number(node, "lowest", float(np.finfo(np.float32).min))
        quant = self.spec.tensors[node.inputs[0]]
        value = np.array(np.iinfo(quant.dtype).min, quant.dtype)
        return self.model.constant(self.names.part(node.name, "lowest"), value, _per_tensor(quant))

    def indices(self, node: Node, role: str, value: ArrayLike) -> TensorId:
        """Make a constant of axes, sizes or positions."""
        return self.model.shared_constant(self.names.part(node.name, role), np.array(value, np.int32))

    def source(self, node: Node, index: int = 0) -> TensorId:
        """A tensor that a node takes, in the form in which the node computes."""
        name = node.inputs[index]
        return self._integers[name] if self.is_integer(node) else self.float_tensor(name)

    def sources(self, node: Node) -> list[TensorId]:
        """All tensors that a node takes."""
        return [self.source(node, index) for index in range(len(node.inputs))]

    def source_shape(self, node: Node) -> Shape:
        """The shape of a node's first input, without the batch."""
        return self.graph.shapes[node.inputs[0]]

    def result_shape(self, node: Node) -> Shape:
        """The shape of what a node computes, without the batch."""
        return self.graph.shapes[node.name]

    def never_below_zero(self, name: str) -> bool:
        """Whether no element of a node's tensor is below zero, so that a padded zero never wins a maximum."""
        quant = self.spec.tensors.get(name)
        return name in self._nonnegative or (quant is not None and quant.zero_point <= quant.qmin)

    def integer_tensor(self, name: str) -> TensorId:
        """The integers of the node of this name."""
        return self._integers[name]

    def float_tensor(self, name: str) -> TensorId:
        """The real numbers of the node of this name; from its integers where it has some."""
        if name not in self._floats:
            self._floats[name] = self.model.activation(self.names.dequantized(name), self._batched(name))
            self._dequantize(self._integers[name], self._floats[name])
        return self._floats[name]

    def _dequantize(self, integers: TensorId, result: TensorId) -> None:
        self.model.operator("DEQUANTIZE", [integers], result, schema.DequantizeOptionsT())

    def _is_stored_only(self, node: Node, quant: ConstantQuant) -> bool:
        """Whether a constant's type saves space only, and the kernel wants float32."""
        return quant.dtype == "float16" or (isinstance(node.op, DepthwiseConv2D) and self.is_hybrid(node))

    def _unpacked(self, node: Node, role: str, stored: TensorId, shape: tuple[int, ...]) -> TensorId:
        # Constant in, constant out: XNNPACK computes this once, when the file is loaded.
        unpacked = self.model.activation(self.names.part(node.name, role), shape)
        self._dequantize(stored, unpacked)
        return unpacked

    def _batched(self, name: str) -> tuple[int | None, ...]:
        return (self.batch, *self.graph.shapes[name])

    @cached_property
    def _nonnegative(self) -> frozenset[str]:
        return nonnegative(self.graph)


def _per_tensor(quant: TensorQuant) -> Quantization:
    return Quantization(scales=(quant.scale,), zero_points=(quant.zero_point,))


def _per_channel(quant: ConstantQuant, axis: int) -> Quantization | None:
    """Scales along a stored constant's dimension; None for float16, which has none."""
    if not quant.scales:
        return None
    return Quantization(scales=quant.scales, zero_points=(0,) * len(quant.scales), axis=axis)
