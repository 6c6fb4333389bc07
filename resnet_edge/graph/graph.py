"""The graph: nodes in topological order, one output tensor a node, named like the node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from resnet_edge.graph.geometry import Shape, ShapeError
from resnet_edge.graph.operators import Elementwise, Function, Input, Operator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INPUT_NAME = "image"
"""The input tensor's name in every format; reserved, as are ``OUTPUT_NAMES``."""

OUTPUT_NAMES = ("logits", "probabilities")
"""The output tensor's name in every format: the second when the model ends in softmax or sigmoid."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator in its place.

    Attributes:
        name: Unique, made of ``[A-Za-z0-9_./-]``: legal in every format. Also the output tensor's name.
        op: The operator with its attributes and weights.
        inputs: Names of the nodes whose tensors it takes.
        source: The layer's path in the user's model, as the user wrote it.
    """

    name: str
    op: Operator
    inputs: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A float model: NHWC, batch left out, checked for order and shapes when made.

    Attributes:
        name: The model's name.
        nodes: Topologically ordered; the first is the input, named ``image``. A model has no other; what is
            made of a single operator has one ``Input`` more for each further tensor that it takes.
        output: Name of the node whose tensor is the result.

    Raises:
        ValueError: A name is used twice or before it is defined.
        ShapeError: A node cannot take its inputs; the message names the node.
    """

    name: str
    nodes: tuple[Node, ...]
    output: str

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0].op, Input) or self.nodes[0].name != INPUT_NAME:
            raise ValueError(f"a graph begins with one Input node named {INPUT_NAME!r}")
        if self.output not in self.shapes:
            raise ValueError(f"output {self.output!r} is not a node")

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Every tensor's shape by name, without the batch dimension."""
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            if node.name in shapes:
                raise ValueError(f"two nodes are named {node.name!r}")
            missing = [name for name in node.inputs if name not in shapes]
            if missing:
                raise ValueError(f"{node.name!r} uses {missing[0]!r} before it is defined")
            try:
                shapes[node.name] = node.op.infer([shapes[name] for name in node.inputs])
            except ShapeError as error:
                raise ShapeError(f"{node.source or node.name}: {error}") from error
        return shapes

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that take each tensor (a node that takes it twice is listed twice)."""
        users: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                users[name].append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the ``Input`` nodes, ``image`` first."""
        return tuple(node.name for node in self.nodes if isinstance(node.op, Input))

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels) of the image."""
        return self.shapes[INPUT_NAME]

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return self.shapes[self.output][-1]

    @property
    def output_name(self) -> str:
        """The output tensor's name in every format."""
        op = self.by_name[self.output].op
        ends_in_probabilities = isinstance(op, Elementwise) and op.function in (
            Function.SOFTMAX,
            Function.SIGMOID,
        )
        return OUTPUT_NAMES[ends_in_probabilities]

    def tensor_name(self, node: str) -> str:
        """The name that a node's output tensor has in every format: the node's own, but for the output."""
        return self.output_name if node == self.output else node

    @property
    def parameters(self) -> int:
        """Number of constants held by the nodes."""
        return sum(weight.size for node in self.nodes for weight in node.op.weights().values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image (convolutions and dense layers)."""
        return sum(node.op.macs(self.shapes[node.name]) for node in self.nodes)


class GraphEditor:
    """A graph under change: a pass edits, then takes a new graph; the old one is never touched."""

    def __init__(self, graph: Graph) -> None:
        self._name = graph.name
        self._nodes = {node.name: node for node in graph.nodes}
        self._output = graph.output

    def node(self, name: str) -> Node:
        """The node as it stands now."""
        return self._nodes[name]

    def consumers(self, name: str) -> list[Node]:
        """The nodes that take this tensor now."""
        return [node for node in self._nodes.values() if name in node.inputs]

    def is_output(self, name: str) -> bool:
        """Whether the tensor is the graph's result."""
        return name == self._output

    def set_op(self, name: str, op: Operator) -> None:
        """Give a node another operator; its name and inputs stay."""
        self._nodes[name] = replace(self._nodes[name], op=op)

    def set_inputs(self, name: str, inputs: Iterable[str]) -> None:
        """Give a node other inputs."""
        self._nodes[name] = replace(self._nodes[name], inputs=tuple(inputs))

    def add(self, node: Node) -> None:
        """Add a node; the order is settled by ``graph()``."""
        if node.name in self._nodes:
            raise ValueError(f"two nodes are named {node.name!r}")
        self._nodes[node.name] = node

    def redirect(self, old: str, new: str, *, keep: Iterable[str] = ()) -> None:
        """Let every consumer of ``old`` (but those in ``keep``) take ``new`` instead."""
        kept = set(keep)
        for node in self.consumers(old):
            if node.name not in kept:
                self.set_inputs(node.name, (new if name == old else name for name in node.inputs))
        if self._output == old:
            self._output = new

    def remove(self, name: str) -> None:
        """Take a one-input node out; its consumers take its input."""
        (source,) = self._nodes[name].inputs
        self.redirect(name, source)
        del self._nodes[name]

    def unused_name(self, wanted: str) -> str:
        """``wanted``, or with the first free number behind it."""
        name, number = wanted, 2
        while name in self._nodes or name in OUTPUT_NAMES:
            name, number = f"{wanted}_{number}", number + 1
        return name

    def graph(self) -> Graph:
        """The edited graph: what the output needs, in topological order."""
        ordered: dict[str, Node] = {}
        # The input stays even when nothing needs it: a graph without one has no shape.
        stack = [(self._output, False), (INPUT_NAME, False)]
        while stack:
            name, ready = stack.pop()
            if name in ordered:
                continue
            node = self._nodes[name]
            if ready:
                ordered[name] = node
            else:
                stack.append((name, True))
                stack.extend((source, False) for source in reversed(node.inputs))
        return Graph(name=self._name, nodes=tuple(ordered.values()), output=self._output)
