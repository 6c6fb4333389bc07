"""An ONNX graph under construction: the one place where its tensors, constants and nodes are made.

Names: a graph node ``n`` becomes one or a few ONNX nodes. The main one is named ``n``, the others
``n/<what it does>`` (``n/relu``); the last one's output tensor is ``n``, those in between are
``n/<operator type>``; constants are ``n/<role>`` (``n/weight``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from resnet_edge.graph import INPUT_NAME
from resnet_edge_converters.onnx_file import Constant
from resnet_edge_converters.onnx_layout import channel_first_vectors, stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.geometry import Shape

OPEN_BATCH = "N"
"""The batch dimension's name where it is open."""


class OnnxGraphBuilder:
    """Collects what ``graph`` becomes.

    Attributes:
        graph: The float graph.
        settings: How the file is laid out.
        constants: The initializers, in the order of their nodes.
    """

    def __init__(self, graph: Graph, settings: ConversionSettings) -> None:
        self.graph = graph
        self.settings = settings
        self.constants: list[Constant] = []
        self._nodes: list[NodeProto] = []
        self._inner: list[ValueInfoProto] = []
        self._channel_first = channel_first_vectors(graph)
        self._tensors: dict[str, str] = {}
        self._taken = {graph.tensor_name(node.name) for node in graph.nodes}

    def expansion(self, node: Node) -> Expansion:
        """Where the ONNX nodes of one graph node are made; its inputs' expansions are done."""
        return Expansion(self, node)

    def map_order(self, node: str) -> Shape | None:
        """The map whose elements a node's vector holds channel by channel; None: the graph's order."""
        return self._channel_first.get(node)

    def tensor(self, node: str) -> str:
        """The tensor that holds a graph node's result."""
        return self._tensors[node]

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Keep an initializer; its name gets a number where a node already has it."""
        name = self.unused_name(name)
        self.constants.append(Constant(name=name, array=array))
        return name

    def finish(self, node: Node, steps: Sequence[NodeProto], dims: Sequence[Shape]) -> None:
        """Take what a graph node became: ONNX nodes in order, with their outputs' shapes."""
        result = self.graph.tensor_name(node.name)
        if node.name == INPUT_NAME and steps:
            result = steps[-1].output[0]
        elif steps:
            steps[-1].output[0] = result
        self._tensors[node.name] = result
        self._nodes.extend(steps)
        for step, shape in zip(steps, dims, strict=True):
            if step.output[0] != self.graph.output_name:
                self._inner.append(self._value(step.output[0], shape))

    def proto(self) -> GraphProto:
        """The ONNX graph, without its constants."""
        shape = self.graph.input_shape
        image = shape if self.settings.onnx_layout == "nhwc" else stored(shape)
        output = stored(self.graph.shapes[self.graph.output])
        return helper.make_graph(
            self._nodes,
            self.graph.name,
            inputs=[self._value(INPUT_NAME, image)],
            outputs=[self._value(self.graph.output_name, output)],
            value_info=self._inner,
        )

    def _value(self, name: str, shape: Shape) -> ValueInfoProto:
        batch = OPEN_BATCH if self.settings.batch is None else self.settings.batch
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    def unused_name(self, wanted: str) -> str:
        """``wanted``, or with the first free number behind it; from now on it is taken."""
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


class Expansion:
    """The ONNX nodes that one graph node becomes.

    Attributes:
        node: The graph node.
        inputs: The tensors that hold its inputs, stored as ``onnx_layout`` says.
        input_shapes: Their shapes in the graph.
        sources: The operators that compute its inputs.
        shape: Its result's shape in the graph.
        opset: The operator set to write in.
    """

    def __init__(self, builder: OnnxGraphBuilder, node: Node) -> None:
        graph = builder.graph
        self.node = node
        self.inputs = [builder.tensor(name) for name in node.inputs]
        self.input_shapes = [graph.shapes[name] for name in node.inputs]
        self.sources = [graph.by_name[name].op for name in node.inputs]
        self.shape = graph.shapes[node.name]
        self.opset = builder.settings.opset
        self.nhwc_input = builder.settings.onnx_layout == "nhwc"
        self._builder = builder
        self._steps: list[NodeProto] = []
        self._dims: list[Shape] = []

    @property
    def map_order(self) -> Shape | None:
        """The map whose elements the first input, a vector, holds channel by channel."""
        return self._builder.map_order(self.node.inputs[0])

    @property
    def keeps_channel_first(self) -> bool:
        """Whether the result is a vector that stays in channel-first order."""
        return self._builder.map_order(self.node.name) is not None

    def weights(self, role: str, array: NDArray[Any]) -> str:
        """A constant of the model, in ONNX's order of dimensions."""
        return self._builder.constant(f"{self.node.name}/{role}", array)

    def scalar(self, role: str, value: float) -> str:
        """A number that the operator's definition brings along."""
        return self._builder.constant(f"{self.node.name}/{role}", np.array(value, np.float32))

    def integers(self, role: str, values: Sequence[int]) -> str:
        """A list of axes, sizes or positions."""
        return self._builder.constant(f"{self.node.name}/{role}", np.array(values, np.int64))

    def emit(
        self,
        op_type: str,
        inputs: Sequence[str],
        *,
        aside: str = "",
        dims: Shape | None = None,
        **attributes: float | str | Sequence[int],
    ) -> str:
        """Add an ONNX node.

        Args:
            op_type: The ONNX operator.
            inputs: Names of tensors and constants; empty for one that is left out.
            aside: What the node does beside the main one; it is named after that.
            dims: Its output's shape as stored; None: that of the graph node's result.
            attributes: The ONNX operator's attributes.

        Returns:
            The output tensor's name, to be used inside this expansion only.
        """
        output = self._builder.unused_name(f"{self.node.name}/{aside or op_type.lower()}")
        name = output if aside else self.node.name
        step = helper.make_node(op_type, inputs, [output], name)
        step.attribute.extend(helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
        self._steps.append(step)
        self._dims.append(stored(self.shape) if dims is None else dims)
        return output

    def close(self) -> None:
        """Hand the nodes over; the last one's output is the graph node's tensor."""
        self._builder.finish(self.node, self._steps, self._dims)
