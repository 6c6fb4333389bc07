"""A model's constants in ONNX's layout and back: output channels first, inputs as vectors are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D, PRelu
from resnet_edge_converters.onnx_layout import channel_first, channel_first_vectors, channel_last

if TYPE_CHECKING:
    from collections.abc import Container

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Shape

_OIHW, _HWIO = (3, 2, 0, 1), (2, 3, 1, 0)
_HALVES_SWAPPED = (2, 3, 0, 1)


OUTPUT_SCALE, OUTPUT_ZERO_POINT = "output_scale", "output_zero_point"
"""The last parts of the names of the constants that say what a quantized tensor's integers mean."""

ZERO_POINT = "zero_point"
"""The last part of the name of a weight's zero points, which are zeros."""


def free_name(wanted: str, taken: Container[str]) -> str:
    """``wanted``, or with the first number behind it that makes it none of ``taken``.

    A user's layer may be called ``conv/weight`` beside another one called ``conv``.
    """
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def stored_name(role: str, dtype: str) -> str:
    """The last part of the name of a constant that is stored as ``dtype``."""
    return f"{role}_{dtype}"


def scale_name(role: str) -> str:
    """The last part of the name of a constant's scales."""
    return "scale" if role == "weight" else f"{role}_scale"


class ConstantLayout:
    """Where each number of a graph's constants is in the file.

    Every weight has its output channels first, so that is where it has one scale a channel.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._channel_first = channel_first_vectors(graph)

    def keeps_channel_first(self, node: str) -> bool:
        """Whether a node's result is a vector that stays in channel-first order."""
        return node in self._channel_first

    def to_stored(self, node: Node, role: str, value: NDArray[Any]) -> NDArray[Any]:
        """A node's constant, given in the graph's layout, as ONNX has it; a view where that is possible."""
        op = node.op
        if role == "bias":
            return value
        if isinstance(op, Conv2D):
            return value.transpose(_OIHW)
        if isinstance(op, DepthwiseConv2D):
            return value.transpose(_HALVES_SWAPPED).reshape(-1, 1, *op.kernel)
        order = self._map_order(node)
        if order is not None:
            value = channel_first(value, order)
        if isinstance(op, Dense):
            return value.T
        is_map = len(self._graph.shapes[node.name]) == 3
        return value.reshape(-1, 1, 1) if isinstance(op, PRelu) and is_map else value

    def from_stored(self, node: Node, role: str, value: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`to_stored`.

        Raises:
            ValueError: The constant has another size than the operator's own.
        """
        op = node.op
        if role == "bias":
            return value
        if isinstance(op, Conv2D):
            return value.transpose(_HWIO)
        if isinstance(op, DepthwiseConv2D):
            height, width, channels, multiplier = op.weight.shape
            return value.reshape(channels, multiplier, height, width).transpose(_HALVES_SWAPPED)
        value = value.T if isinstance(op, Dense) else value.reshape(op.weights()[role].shape)
        order = self._map_order(node)
        return value if order is None else channel_last(value, order)

    def _map_order(self, node: Node) -> Shape | None:
        """The map whose elements a node's input, a vector, holds channel by channel."""
        return self._channel_first.get(node.inputs[0])
