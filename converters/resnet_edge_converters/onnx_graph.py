"""An ONNX graph under construction: the one place where its tensors, constants and nodes are made.

Names: a graph node ``n`` becomes one or a few ONNX nodes. The main one is named ``n``, the others
``n/<what it does>`` (``n/relu``); the last one's output tensor is ``n``, those in between are
``n/<operator type>``; constants are ``n/<role>`` (``n/weight``).

A constant that is not float32 is ``n/<role>_<type>`` (``n/weight_int8``, ``n/bias_int32``,
``n/weight_float16``); ``n/scale`` and ``n/zero_point`` (zeros) are the weight's, ``n/bias_scale`` is the
bias's scale. ``n`` is then the quantized tensor, with ``n/output_scale`` and ``n/output_zero_point``, and the
float32 tensor made from it is ``n/float32``. Operators that only move integers hand on their input's scale;
they have these two only where a float operator takes their result. ``image`` and the output have these names
in the type in which the file takes and gives them, and are ``image/uint8`` and so on inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from resnet_edge_converters.onnx_constants import (
    OUTPUT_SCALE,
    OUTPUT_ZERO_POINT,
    ZERO_POINT,
    ConstantLayout,
    free_name,
    scale_name,
    stored_name,
)
from resnet_edge_converters.onnx_file import Constant
from resnet_edge_converters.onnx_layout import stored
from resnet_edge_converters.onnx_types import ElementTypes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Node
    from resnet_edge.graph.geometry import Shape
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge_converters.onnx_types import DType

OPEN_BATCH = "N"
"""The batch dimension's name where it is open."""


class OnnxGraphBuilder:
    """Collects what a graph becomes.

    Attributes:
        quantized: The float graph, its spec and its integers.
        settings: How the file is laid out.
        types: Which element type each tensor has.
        layout: Where each number of the constants goes.
        constants: The initializers, in the order of their nodes.
    """

    def __init__(self, quantized: Quantized, settings: ConversionSettings) -> None:
        self.quantized = quantized
        self.settings = settings
        self.types = ElementTypes(quantized, settings)
        self.layout = ConstantLayout(quantized.graph)
        self.constants: list[Constant] = []
        self._graph = quantized.graph
        self._nodes: list[NodeProto] = []
        self._inner: list[ValueInfoProto] = []
        self._forms: dict[str, dict[DType, str]] = {}
        self._parameters: dict[str, tuple[str, str]] = {}
        self._taken = {self._graph.tensor_name(node.name) for node in self._graph.nodes}

    def expansion(self, node: Node) -> Expansion:
        """Where the ONNX nodes of one graph node are made; its inputs' expansions are done."""
        return Expansion(self, node)

    def tensor(self, node: str, dtype: DType) -> str:
        """The tensor that holds a graph node's result, converted where it has another type."""
        forms = self._forms[node]
        if dtype not in forms:
            source, tensor = next(iter(forms.items()))
            forms[dtype] = self._name(node, dtype)
            if source.kind == "f":
                kind = helper.np_dtype_to_tensor_dtype(dtype)
                step = helper.make_node("Cast", [tensor], [forms[dtype]], forms[dtype], to=kind)
            else:
                inputs = [tensor, *self.parameters(node)]
                step = helper.make_node("DequantizeLinear", inputs, [forms[dtype]], forms[dtype])
            self._append(step, stored(self._graph.shapes[node]), dtype)
        return forms[dtype]

    def parameters(self, node: str) -> tuple[str, str]:
        """The constants that are the scale and the zero point of a node's result."""
        if node not in self._parameters:
            quant = self.quantized.spec.tensors[node]
            self._parameters[node] = (
                self.constant(f"{node}/{OUTPUT_SCALE}", np.array(quant.scale, np.float32)),
                self.constant(f"{node}/{OUTPUT_ZERO_POINT}", self.types.zero_point(quant)),
            )
        return self._parameters[node]

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Keep an initializer; its name gets a number where a node already has it."""
        name = self.unused_name(name)
        self.constants.append(Constant(name=name, array=array))
        return name

    def weight(self, node: Node, role: str) -> str:
        """A node's constant in the type that the spec gives it; integers come with their DequantizeLinear."""
        key = f"{node.name}/{role}"
        quant = self.quantized.spec.constants.get(key)
        if quant is None:
            return self.constant(key, self.layout.to_stored(node, role, node.op.weights()[role]))
        array = self.layout.to_stored(node, role, self.quantized.constants[key])
        values = self.constant(f"{node.name}/{stored_name(role, quant.dtype)}", array)
        if not quant.scales:
            return values
        per_channel = len(quant.scales) > 1
        scales = np.array(quant.scales if per_channel else quant.scales[0], np.float32)
        inputs = [values, self.constant(f"{node.name}/{scale_name(role)}", scales)]
        if role == "weight":  # zeros are the default, but ONNX Runtime fuses no Gemm without
            inputs.append(self.constant(f"{node.name}/{ZERO_POINT}", np.zeros(scales.shape, array.dtype)))
        result = self.unused_name(key)
        step = helper.make_node("DequantizeLinear", inputs, [result], result)
        if per_channel:
            step.attribute.append(helper.make_attribute("axis", 0))
        self._nodes.append(step)
        self._inner.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, array.shape))
        return result

    def finish(
        self, node: Node, steps: Sequence[NodeProto], dims: Sequence[Shape], dtypes: Sequence[DType]
    ) -> None:
        """Take what a graph node became: ONNX nodes in order, with their outputs' shapes and types."""
        if steps:
            steps[-1].output[0] = result = self._name(node.name, dtypes[-1])
            self._forms[node.name] = {dtypes[-1]: result}
        else:  # the image as it comes
            self._forms[node.name] = {self.types.io: node.name}
        for step, shape, kind in zip(steps, dims, dtypes, strict=True):
            self._append(step, shape, kind)

    def proto(self) -> GraphProto:
        """The ONNX graph, without its constants."""
        graph, io = self._graph, self.types.io
        output = self.tensor(graph.output, io)
        return helper.make_graph(
            self._nodes,
            graph.name,
            inputs=[self._value(name, self._given_shape(name), io) for name in graph.inputs],
            outputs=[self._value(output, stored(graph.shapes[graph.output]), io)],
            value_info=self._inner,
        )

    def _given_shape(self, name: str) -> Shape:
        shape = self._graph.shapes[name]
        return shape if self.settings.onnx_layout == "nhwc" else stored(shape)

    def _append(self, step: NodeProto, shape: Shape, dtype: DType) -> None:
        self._nodes.append(step)
        if step.output[0] != self._graph.output_name:
            self._inner.append(self._value(step.output[0], shape, dtype))

    def _name(self, node: str, dtype: DType) -> str:
        """The name of a node's result in one type."""
        own = self.types.io if node == self._graph.output else self.types.held(node)
        if node in self._graph.inputs or dtype != own:
            return self.unused_name(f"{node}/{dtype.name}")
        return self._graph.tensor_name(node)

    def _value(self, name: str, shape: Shape, dtype: DType) -> ValueInfoProto:
        batch = OPEN_BATCH if self.settings.batch is None else self.settings.batch
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), [batch, *shape])

    def unused_name(self, wanted: str) -> str:
        """``wanted``, or with the first free number behind it; from now on it is taken."""
        name = free_name(wanted, self._taken)
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
        is_integer: Whether it is computed in integers.
        held: The type in which its result is handed on.
    """

    def __init__(self, builder: OnnxGraphBuilder, node: Node) -> None:
        graph, types = builder.quantized.graph, builder.types
        self.node = node
        self.dtype = types.computed(node)
        self.inputs = [builder.tensor(name, self.dtype) for name in node.inputs]
        self.input_shapes = [graph.shapes[name] for name in node.inputs]
        self.sources = [graph.by_name[name].op for name in node.inputs]
        self.shape = graph.shapes[node.name]
        self.opset = builder.settings.opset
        self.nhwc_input = builder.settings.onnx_layout == "nhwc"
        self.is_integer = builder.quantized.is_integer(node.name)
        self.held = types.held(node.name)
        self._builder = builder
        self._steps: list[NodeProto] = []
        self._dims: list[Shape] = []
        self._dtypes: list[DType] = []

    @property
    def keeps_channel_first(self) -> bool:
        """Whether the result is a vector that stays in channel-first order."""
        return self._builder.layout.keeps_channel_first(self.node.name)

    def weight(self, role: str) -> str:
        """A constant of the model, in ONNX's order of dimensions and in the type that the spec gives it."""
        return self._builder.weight(self.node, role)

    def bias(self) -> list[str]:
        """The bias, if there is something to add."""
        key = f"{self.node.name}/bias"
        wanted = key in self._builder.quantized.spec.constants or self.node.op.weights()["bias"].any()
        return [self.weight("bias")] if wanted else []

    def scalar(self, role: str, value: float) -> str:
        """A number that the operator's definition brings along."""
        return self._builder.constant(f"{self.node.name}/{role}", np.array(value, self.dtype))

    def lowest(self) -> str:
        """A number that nothing in the node's input is less than."""
        limits = np.iinfo(self.dtype) if self.dtype.kind in "iu" else np.finfo(self.dtype)
        return self.scalar("lowest", limits.min)

    def zero(self) -> list[str]:
        """What stands for 0.0, where that is not the default."""
        if self.dtype.kind == "f":
            return []
        quant = self._builder.quantized.spec.tensors[self.node.name]
        return [self._builder.constant(f"{self.node.name}/zero", self._builder.types.zero_point(quant))]

    def factors(self, role: str, values: Sequence[float]) -> str:
        """A list of numbers that are float32 in every precision."""
        return self._builder.constant(f"{self.node.name}/{role}", np.array(values, np.float32))

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
        dtype: DType | None = None,
        **attributes: float | str | Sequence[int],
    ) -> str:
        """Add an ONNX node.

        Args:
            op_type: The ONNX operator.
            inputs: Names of tensors and constants; empty for one that is left out.
            aside: What the node does beside the main one; it is named after that.
            dims: Its output's shape as stored; None: that of the graph node's result.
            dtype: Its output's element type; None: that in which the graph node computes.
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
        self._dtypes.append(self.dtype if dtype is None else dtype)
        return output

    def settle(self, tensor: str, *, clamped: bool = False) -> str:
        """Quantize what was computed in float, if the spec has a scale for it.

        Args:
            tensor: The last tensor, or the image.
            clamped: Whether an activation limits it; most often the type's own limits are the activation's.
        """
        if self.held.kind == "f" or (self._dtypes or [self.dtype])[-1] == self.held:
            return tensor
        dims = self._dims[-1] if self._dims else None
        inputs = [tensor, *self._builder.parameters(self.node.name)]
        tensor = self.emit("QuantizeLinear", inputs, aside="quantize", dims=dims, dtype=self.held)
        quant = self._builder.quantized.spec.tensors[self.node.name]
        return self.clamp(tensor) if clamped and self._builder.types.is_limited(quant) else tensor

    def clamp(self, tensor: str) -> str:
        """Limit integers to those that the spec lets occur."""
        limits = self._builder.types.limits(self._builder.quantized.spec.tensors[self.node.name])
        ends = [
            self._builder.constant(f"{self.node.name}/{name}", limit)
            for name, limit in zip(("smallest", "largest"), limits, strict=True)
        ]
        return self.emit("Clip", [tensor, *ends], aside="clamp", dtype=self.held)

    def close(self) -> None:
        """Hand the nodes over; the last one's output is the graph node's tensor."""
        self.settle(self._steps[-1].output[0] if self._steps else self.node.name)
        self._builder.finish(self.node, self._steps, self._dims, self._dtypes)
