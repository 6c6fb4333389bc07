"""How a node of the graph reaches its tensors in the TFLite model under construction."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.graph.operators import Activation
from resnet_edge.passes.signs import nonnegative

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Shape
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
    how real numbers are stored.
    """

    def __init__(self, graph: Graph, model: ModelBuilder, batch: int | None) -> None:
        self.graph = graph
        self.model = model
        self.batch = batch
        self._taken = {graph.tensor_name(name) for name in graph.shapes}
        self._tensors: dict[str, TensorId] = {}

    def result(self, node: Node) -> TensorId:
        """Make the tensor that a node computes, under the name that it has in every format."""
        shape = (self.batch, *self.graph.shapes[node.name])
        tensor = self.model.activation(self.graph.tensor_name(node.name), shape)
        self._tensors[node.name] = tensor
        return tensor

    def between(self, node: Node, role: str, shape: Shape) -> TensorId:
        """Make a tensor between two of the operators that a node becomes."""
        return self.model.activation(self._name(node, role), (self.batch, *shape))

    def weight(self, node: Node, role: str, value: NDArray[np.float32]) -> TensorId:
        """Make a constant of real numbers, in TFLite's layout; a transposed view will do."""
        return self.model.constant(self._name(node, role), value)

    def number(self, node: Node, role: str, value: float) -> TensorId:
        """Make a constant of one real number."""
        return self.model.shared_constant(self._name(node, role), np.array(value, np.float32))

    def indices(self, node: Node, role: str, value: ArrayLike) -> TensorId:
        """Make a constant of axes, sizes or positions."""
        return self.model.shared_constant(self._name(node, role), np.array(value, np.int32))

    def source(self, node: Node, index: int = 0) -> TensorId:
        """A tensor that a node takes."""
        return self._tensors[node.inputs[index]]

    def sources(self, node: Node) -> list[TensorId]:
        """All tensors that a node takes."""
        return [self._tensors[name] for name in node.inputs]

    def source_shape(self, node: Node) -> Shape:
        """The shape of a node's first input, without the batch."""
        return self.graph.shapes[node.inputs[0]]

    def result_shape(self, node: Node) -> Shape:
        """The shape of what a node computes, without the batch."""
        return self.graph.shapes[node.name]

    @cached_property
    def nonnegative(self) -> frozenset[str]:
        """Names of the nodes whose tensors hold no number below zero."""
        return nonnegative(self.graph)

    def tensor(self, name: str) -> TensorId:
        """The tensor that the node of this name computes."""
        return self._tensors[name]

    def _name(self, node: Node, role: str) -> str:
        # A user's layer may be called "conv/weight" beside another one called "conv".
        name, number = f"{node.name}/{role}", 2
        while name in self._taken:
            name, number = f"{node.name}/{role}_{number}", number + 1
        return name
