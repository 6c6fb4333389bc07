"""How the files of each format hold a graph's tensors, and how they are run with these in sight.

In the graph, and in the integer reference, a tensor is (N, height, width, channels) or (N, features), in the
spec's integers where the spec has a scale for its node and in float32 elsewhere. Files differ from that in
layout, in element type and at their ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import UsageError
from resnet_edge.quantization.integer_operators import dequantize, quantize
from resnet_edge.quantization.requantization import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.engines import Kernels
    from resnet_edge.engines.onnx import OnnxEngine
    from resnet_edge.engines.tflite import TFLiteEngine
    from resnet_edge.graph.geometry import Shape
    from resnet_edge.quantization.integer import Tensor
    from resnet_edge.quantization.spec import Quantized

    Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
    """Inputs by name to the one output, all as the file has them."""

FormatName: TypeAlias = Literal["tflite", "onnx"]
"""The formats whose inner tensors can be seen."""

Byte: TypeAlias = Literal["int8", "uint8"]

_REASONS = {
    "tflite": "",
    "onnx": "",
    "savedmodel": "TensorFlow runs a SavedModel as one compiled function that gives out no inner tensors",
}

_UNSIGNED = 128
"""What a uint8 is more than the spec's int8."""

_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def why_not_exposed(format_: str) -> str:
    """Why a format's files cannot be compared layer by layer; empty where they can."""
    return _REASONS.get(format_, f"resnet-edge does not know the inner tensors of {format_!r} files")


class FileForm(ABC):
    """How a file holds the tensors of the graph that it was written from.

    Attributes:
        format: The converter's name.
        quantized: The graph, with its spec.
        byte: In which type the file holds the spec's int8.
    """

    format: FormatName

    def __init__(self, quantized: Quantized, byte: Byte) -> None:
        self.quantized = quantized
        self.byte = byte

    @abstractmethod
    def of(self, quantized: Quantized) -> Self:
        """The same for another graph."""

    @abstractmethod
    def open(self, artifact: Path, *, exposed: bool) -> TFLiteEngine | OnnxEngine:
        """The file in its runtime, on request with the tensors of all nodes in sight."""

    @abstractmethod
    def open_operator(self, artifact: Path) -> Run:
        """A file with any number of inputs in its runtime."""

    def tensors(self, engine: TFLiteEngine | OnnxEngine) -> dict[str, Tensor]:
        """The tensors of the first image of an engine's last run by node name; those that the file has."""
        present = engine.tensors
        return {
            node: self.in_graph(node, present[name][:1])
            for node, name in self._names.items()
            if name in present
        }

    def in_file(self, name: str, tensor: Tensor) -> NDArray[Any]:
        """The tensor of the node of this name as the file takes or gives it at its ends."""
        spec = self.quantized.spec
        quant = spec.tensors.get(name)
        if quant is not None and spec.io == "float32":
            tensor = dequantize(tensor, quant)
        elif spec.io == "uint8":
            tensor = (tensor.astype(np.int16) + _UNSIGNED).astype(np.uint8)
        return self._stored(tensor)

    def in_graph(self, name: str, stored: NDArray[Any]) -> Tensor:
        """What the file has for the node of this name as the graph has it."""
        tensor = self._from_stored(name, stored)
        quant = self.quantized.spec.tensors.get(name)
        if tensor.dtype == np.uint8:
            return (tensor.astype(np.int16) - _UNSIGNED).astype(np.int8)
        if tensor.dtype.kind == "f" and quant is not None:
            # Multiples of the scale, which come back exactly.
            return quantize(tensor, quant, Rounding.EVEN)
        return tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor

    @cached_property
    @abstractmethod
    def _names(self) -> Mapping[str, str]:
        """The tensors' names in the file by node name."""

    @abstractmethod
    def _stored(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """In the file's layout."""

    @abstractmethod
    def _from_stored(self, name: str, stored: NDArray[Any]) -> NDArray[Any]:
        """In the graph's layout."""


class TFLiteForm(FileForm):
    """A ``.tflite`` file: NHWC, too.

    Args:
        quantized: What it was written from.
        kernels: What computes.
    """

    format = "tflite"

    def __init__(self, quantized: Quantized, kernels: Kernels) -> None:
        super().__init__(quantized, "int8")
        self._kernels = kernels

    def of(self, quantized: Quantized) -> Self:
        """The same for another graph."""
        return type(self)(quantized, self._kernels)

    def open(self, artifact: Path, *, exposed: bool) -> TFLiteEngine:
        """The file in LiteRT, on request with the tensors of all nodes in sight."""
        from resnet_edge.engines.tflite import TFLiteEngine

        names = set(self._names.values()) if exposed else ()
        return TFLiteEngine(artifact, threads=usable_cores(), kernels=self._kernels, exposed=names)

    def open_operator(self, artifact: Path) -> Run:
        """A file with any number of inputs in LiteRT."""
        from resnet_edge.engines.tflite import open_interpreter

        interpreter = open_interpreter(artifact, threads=usable_cores(), kernels=self._kernels)
        inputs, (output,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(given: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            for tensor in inputs:
                interpreter.set_tensor(tensor["index"], given[tensor["name"]])
            interpreter.invoke()
            return np.asarray(interpreter.get_tensor(output["index"]))

        return run

    @cached_property
    def _names(self) -> Mapping[str, str]:
        from resnet_edge_converters.tflite_names import Names

        graph, spec = self.quantized.graph, self.quantized.spec
        names = Names(graph, spec)
        return {
            name: names.integer(name) if name in spec.tensors else names.computed(name)
            for name in graph.shapes
        }

    def _stored(self, tensor: NDArray[Any]) -> NDArray[Any]:
        return tensor

    def _from_stored(self, name: str, stored: NDArray[Any]) -> NDArray[Any]:
        return stored.reshape(len(stored), *self.quantized.graph.shapes[name])


class OnnxForm(FileForm):
    """An ``.onnx`` file: NCHW inside.

    Args:
        quantized: What it was written from.
        byte: The type of quantized activations.
    """

    format = "onnx"

    def of(self, quantized: Quantized) -> Self:
        """The same for another graph."""
        return type(self)(quantized, self.byte)

    @classmethod
    def of_file(cls, quantized: Quantized, artifact: Path) -> Self:
        """The form of a file that was written from ``quantized``."""
        from resnet_edge.inspection.onnx_activations import activation_type

        return cls(quantized, activation_type(artifact))

    def open(self, artifact: Path, *, exposed: bool) -> OnnxEngine:
        """The file in ONNX Runtime, on request with the tensors of all nodes in sight."""
        from resnet_edge.engines.onnx import OnnxEngine

        names = set(self._names.values()) if exposed else ()
        return OnnxEngine(artifact, threads=usable_cores(), exposed=names)

    def open_operator(self, artifact: Path) -> Run:
        """A file with any number of inputs in ONNX Runtime."""
        from resnet_edge.engines.onnx import open_session

        session = open_session(artifact, threads=usable_cores())
        return lambda given: np.asarray(session.run(None, dict(given))[0])

    @cached_property
    def _names(self) -> Mapping[str, str]:
        from resnet_edge_converters.onnx_constants import free_name

        graph, spec = self.quantized.graph, self.quantized.spec
        taken = {graph.tensor_name(name) for name in graph.shapes}
        names = {name: graph.tensor_name(name) for name in graph.shapes}
        if spec.io == "float32":
            # The plain names of both ends belong to the real numbers.
            for name in {*graph.inputs, graph.output} & spec.tensors.keys():
                names[name] = free_name(f"{name}/{self.byte}", taken)
        return names

    @cached_property
    def _channel_first(self) -> Mapping[str, Shape]:
        from resnet_edge_converters.onnx_layout import channel_first_vectors

        return channel_first_vectors(self.quantized.graph)

    def _stored(self, tensor: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(tensor.transpose(_TO_NCHW)) if tensor.ndim == 4 else tensor

    def _from_stored(self, name: str, stored: NDArray[Any]) -> NDArray[Any]:
        from resnet_edge_converters.onnx_layout import channel_last

        shape = self._channel_first.get(name)
        if shape is not None:
            return channel_last(stored.T, shape).T
        return stored.transpose(_TO_NHWC) if stored.ndim == 4 else stored


def form_of(format_: str, quantized: Quantized, *, artifact: Path, kernels: Kernels) -> FileForm:
    """How an artifact that was written from ``quantized`` holds its tensors.

    Raises:
        UsageError: They cannot be seen.
    """
    if format_ == "tflite":
        return TFLiteForm(quantized, kernels)
    if format_ == "onnx":
        return OnnxForm.of_file(quantized, artifact)
    raise UsageError(
        "this artifact cannot be compared layer by layer",
        where=str(artifact),
        found=why_not_exposed(format_),
        allowed="tflite, onnx",
        next_step="choose others with --artifact",
    )
