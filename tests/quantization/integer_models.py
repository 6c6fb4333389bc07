"""Quantized graphs for the tests of the integer reference, and the runtimes they are held against."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from resnet_edge.converters import ConversionSettings
from resnet_edge.graph import INPUT_NAME, Graph, Node
from resnet_edge.graph.execution import execute_nodes
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Conv2D,
    Dense,
    Elementwise,
    Function,
    Input,
    Operator,
    Reshape,
)
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import load_recipes
from resnet_edge.quantization.spec import ConstantQuant, Quantized, QuantSpec, TensorQuant
from resnet_edge.quantization.statistics import Statistics
from resnet_edge_converters.tflite import TFLiteConverter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BUILTIN = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
FUSED = {0: Activation.NONE, 1: Activation.RELU, 3: Activation.RELU6}


def reference_interpreter(path: Path) -> Any:
    """The file in LiteRT's reference kernels, every tensor kept."""
    return _interpreter(path, OpResolverType.BUILTIN_REF)


def xnnpack_interpreter(path: Path) -> Any:
    """The file in LiteRT's default kernels, every tensor kept."""
    return _interpreter(path, OpResolverType.AUTO)


def _interpreter(path: Path, kernels: Any) -> Any:
    with warnings.catch_warnings():
        # Keeping every tensor costs memory, as it warns; it is what the tests look at.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=kernels,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    return interpreter


class ForeignFile:
    """A fully quantized .tflite file of another tool, read as a quantized graph.

    Only what the ResNet-8 of MLPerf Tiny needs. Nodes are named after the index of their output tensor.
    """

    def __init__(self, path: Path) -> None:
        self._model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self._subgraph = self._model.subgraphs[0]
        self._constants: dict[str, NDArray[Any]] = {}
        self._specs: dict[str, ConstantQuant] = {}
        self._shapes: dict[int, tuple[int, ...]] = {}

    def quantized(self) -> Quantized:
        """The whole file."""
        (image,), (output,) = self._subgraph.inputs, self._subgraph.outputs
        nodes = [Node(name=INPUT_NAME, op=Input(shape=self._shape(image)))]
        tensors = {INPUT_NAME: self._tensor(image)}
        names = {image: INPUT_NAME}
        for code in self._subgraph.operators:
            (result,) = code.outputs
            names[result] = str(result)
            inputs = tuple(names[index] for index in code.inputs if index in names)
            nodes.append(Node(name=names[result], op=self._operator(code), inputs=inputs))
            tensors[names[result]] = self._tensor(result)
        return Quantized(
            graph=Graph(name="foreign", nodes=tuple(nodes), output=names[output]),
            spec=QuantSpec(recipe="foreign", tensors=tensors, constants=self._specs),
            constants=self._constants,
        )

    def _operator(self, code: Any) -> Operator:
        kind, options = BUILTIN[self._model.operatorCodes[code.opcodeIndex].builtinCode], code.builtinOptions
        height_width = self._shape(code.inputs[0])[:2]
        match kind:
            case "CONV_2D":
                weight = self._weights(code, (1, 2, 3, 0))
                strides = (options.strideH, options.strideW)
                return Conv2D(
                    weight=weight,
                    bias=np.zeros(weight.shape[-1], np.float32),
                    strides=strides,
                    padding=Padding.same(height_width, weight.shape[:2], strides),
                    activation=FUSED[options.fusedActivationFunction],
                )
            case "FULLY_CONNECTED":
                weight = self._weights(code, (1, 0))
                return Dense(weight=weight, bias=np.zeros(weight.shape[-1], np.float32))
            case "ADD":
                return Add(activation=FUSED[options.fusedActivationFunction])
            case "AVERAGE_POOL_2D":
                size = (options.filterHeight, options.filterWidth)
                return AveragePool2D(size=size, strides=(options.strideH, options.strideW))
            case "RESHAPE":
                return Reshape(shape=self._shape(code.outputs[0]))
            case "SOFTMAX":
                return Elementwise(function=Function.SOFTMAX)
        raise NotImplementedError(kind)

    def _weights(self, code: Any, order: tuple[int, ...]) -> NDArray[np.float32]:
        """Keeps weight and bias in the graph's layout, and gives the weight's shape as zeros."""
        for role, index in zip(("weight", "bias"), code.inputs[1:], strict=True):
            tensor = self._subgraph.tensors[index]
            dtype = np.int8 if role == "weight" else np.int32
            array = np.frombuffer(self._model.buffers[tensor.buffer].data.tobytes(), dtype)
            array = array.reshape(tensor.shape)
            name = f"{code.outputs[0]}/{role}"
            self._constants[name] = array.transpose(order) if role == "weight" else array
            scales = tuple(float(scale) for scale in tensor.quantization.scale)
            self._specs[name] = ConstantQuant(dtype=dtype.__name__, scales=scales, axis=None)  # type: ignore[arg-type]
        return np.zeros(self._constants[f"{code.outputs[0]}/weight"].shape, np.float32)

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(extent) for extent in self._subgraph.tensors[index].shape[1:])

    def _tensor(self, index: int) -> TensorQuant:
        quantization = self._subgraph.tensors[index].quantization
        return TensorQuant(
            dtype="int8",
            scale=float(quantization.scale[0]),
            zero_point=int(quantization.zeroPoint[0]),
            qmin=-128,
            qmax=127,
        )


def calibrated(graph: Graph, recipe: str, images: NDArray[np.float32]) -> Quantized:
    """The graph, quantized with the ranges that it has on these images."""
    ranges = {
        node.name: (min(0.0, float(tensor.min())), max(0.0, float(tensor.max())))
        for node, tensor in execute_nodes(graph, images)
    }
    statistics = Statistics(ranges=ranges, observed=ranges, images=len(images))
    return quantize_graph(graph, load_recipes()[recipe], statistics)


def with_halves(quantized: Quantized) -> Quantized:
    """The same integers under powers of two, where results often lie halfway between two steps."""
    spec = quantized.spec
    tensors = {name: replace(q, scale=_power_of_two(q.scale)) for name, q in spec.tensors.items()}
    constants = {
        name: replace(q, scales=tuple(map(_power_of_two, q.scales))) for name, q in spec.constants.items()
    }
    for node in quantized.graph.nodes:
        weight, bias = f"{node.name}/weight", f"{node.name}/bias"
        if bias in constants:
            scale = tensors[node.inputs[0]].scale
            scales = tuple(scale * weight_scale for weight_scale in constants[weight].scales)
            constants[bias] = replace(constants[bias], scales=scales)
    return replace(quantized, spec=replace(spec, tensors=tensors, constants=constants))


def _power_of_two(scale: float) -> float:
    return float(2.0 ** round(math.log2(scale)))


class Runtime:
    """A quantized graph as our own .tflite file, in LiteRT."""

    def __init__(self, quantized: Quantized, path: Path) -> None:
        self._quantized = quantized
        self._path = path
        TFLiteConverter().convert(quantized.graph, path, ConversionSettings(batch=1), quantized)

    def integers(self, image: NDArray[np.float32], *, reference: bool) -> dict[str, NDArray[Any]]:
        """Every node's integers by name, for one image (1, height, width, channels)."""
        interpreter = (reference_interpreter if reference else xnnpack_interpreter)(self._path)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        index = {tensor["name"]: tensor["index"] for tensor in interpreter.get_tensor_details()}
        found = {}
        for name, quant in self._quantized.spec.tensors.items():
            # At both ends of the file the plain name belongs to the float tensor.
            tensor = interpreter.get_tensor(index[f"{name}/{quant.dtype}" if self._is_end(name) else name])
            found[name] = tensor
        return found

    def _is_end(self, name: str) -> bool:
        return name in (INPUT_NAME, self._quantized.graph.output)
