"""The names of tensors in a .tflite file: the writer gives them, and reading back finds them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_edge.graph import Graph
    from resnet_edge.quantization.spec import QuantSpec


class Names:
    """Every tensor's name, from the graph and the spec alone."""

    def __init__(self, graph: Graph, spec: QuantSpec) -> None:
        self._graph = graph
        self._spec = spec
        self._taken = {graph.tensor_name(name) for name in graph.shapes}

    def part(self, node: str, role: str) -> str:
        """A tensor that belongs to a node but is not its output."""
        # A user's layer may be called "conv/weight" beside another one called "conv".
        name, number = f"{node}/{role}", 2
        while name in self._taken:
            name, number = f"{node}/{role}_{number}", number + 1
        return name

    def constant(self, node: str, role: str) -> str:
        """A constant: ``<node>/<role>`` in float32, else with its type, as ``<node>/weight_int8``."""
        quant = self._spec.constants.get(f"{node}/{role}")
        return self.part(node, role if quant is None else f"{role}_{quant.dtype}")

    def integer(self, node: str) -> str:
        """A node's output in integers: the node's own, unless that is the name of the file's float tensor."""
        dtype = self._spec.tensors[node].dtype
        at_border = node in (*self._graph.inputs, self._graph.output)
        if at_border and self._spec.io != dtype:
            return self.part(node, dtype)
        return self._graph.tensor_name(node)

    def computed(self, node: str) -> str:
        """A node's output where it is computed in float (or given: the image); it may be quantized then."""
        if node in self._spec.tensors and node not in self._graph.inputs:
            return self.part(node, "unquantized")
        return self._graph.tensor_name(node)

    def dequantized(self, node: str) -> str:
        """A node's output turned back from integers."""
        return self._graph.output_name if node == self._graph.output else self.part(node, "float32")
