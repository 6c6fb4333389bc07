"""A node of a graph as a file of its own, written by the same converter and fed with whatever it is to take.

What the operator computes there does not depend on what the layers before it computed: its errors are its
own. The file takes and gives integers where the node does, so that there is nothing else in it.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnet_edge.converters import ConversionSettings, QuantizingConverter, load_converter
from resnet_edge.graph import INPUT_NAME, Graph, Node
from resnet_edge.graph.operators import Input
from resnet_edge.quantization.integer_operators import quantize
from resnet_edge.quantization.requantization import Rounding
from resnet_edge.quantization.spec import Quantized, QuantSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.converters import Converter
    from resnet_edge.quantization.integer import Tensor
    from resnet_edge.verification.formats import Byte, FileForm, FormatName, Run


def one_operator(quantized: Quantized, name: str, *, byte: Byte = "int8") -> Quantized:
    """The node of this name alone; its inputs are called ``image``, ``image_2`` and so on.

    Args:
        quantized: The graph that it is in.
        name: The node; not the input node.
        byte: What a file of 8-bit integers takes and gives.
    """
    graph, spec = quantized.graph, quantized.spec
    node = graph.by_name[name]
    # A tensor that is taken twice is one input.
    given = dict(zip(dict.fromkeys(node.inputs), _input_names(node), strict=False))
    inputs = [Node(name=given[source], op=Input(shape=graph.shapes[source])) for source in given]
    alone = dataclasses.replace(node, inputs=tuple(given[source] for source in node.inputs))
    called = {**given, name: name}
    tensors = {called[source]: spec.tensors[source] for source in called if source in spec.tensors}
    in_bytes = tensors.keys() == set(called.values()) and all(q.dtype == "int8" for q in tensors.values())
    keys = [f"{name}/{role}" for role in node.op.weights() if f"{name}/{role}" in spec.constants]
    return Quantized(
        graph=Graph(name=name, nodes=(*inputs, alone), output=name),
        spec=QuantSpec(
            recipe=spec.recipe,
            io=byte if in_bytes else "float32",
            tensors=tensors,
            constants={key: spec.constants[key] for key in keys},
            kept_float={key: reason for key, reason in spec.kept_float.items() if key == name},
        ),
        constants={key: quantized.constants[key] for key in keys},
    )


def _input_names(node: Node) -> list[str]:
    """As many names as the node has inputs, none of them its own."""
    names = [INPUT_NAME, *(f"{INPUT_NAME}_{number}" for number in range(2, len(node.inputs) + 2))]
    return [name for name in names if name != node.name]


def given_to(quantized: Quantized, node: Node, inputs: Sequence[NDArray[np.float32]]) -> list[Tensor]:
    """The float graph's tensors as a node of the quantized graph takes them."""
    quants = [quantized.spec.tensors.get(name) for name in node.inputs]
    return [
        tensor if quant is None else quantize(tensor, quant, Rounding.EVEN)
        for tensor, quant in zip(inputs, quants, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class OperatorFile:
    """A node's file.

    Attributes:
        path: Where it is.
        form: How it holds its tensors; ``form.quantized`` is the node alone.
    """

    path: Path
    form: FileForm

    @property
    def node(self) -> Node:
        """The node, with its inputs' names in this file."""
        return self.form.quantized.graph.nodes[-1]

    def open(self) -> Run:
        """The file in its runtime.

        Raises:
            ModelRejectedError: The runtime does not accept it.
            DependencyMissingError: The runtime is not installed.
        """
        return self.form.open_operator(self.path)

    def stored_inputs(self, inputs: Sequence[Tensor], image: int) -> Mapping[str, NDArray[Any]]:
        """What the file takes, by name.

        Args:
            inputs: The tensors (N, ...) of the node's inputs.
            image: Of which of the N images.
        """
        one = slice(image, image + 1)
        return {
            name: self.form.in_file(name, tensor[one])
            for name, tensor in zip(self.node.inputs, inputs, strict=True)
        }


@functools.cache
def _converter(format_: FormatName) -> Converter:
    """Looked up once: among all that is installed, that takes longer than writing an operator."""
    return load_converter(format_)


def write_operator(form: FileForm, name: str, destination: Path) -> OperatorFile:
    """Write one node of a graph, for one image a run.

    Args:
        form: Of the whole graph's file; this one is written in the same.
        name: The node; not the input node.
        destination: The file to write.

    Raises:
        ConversionFailedError: The format cannot express the node.
        OSError: The file cannot be written.
    """
    alone = one_operator(form.quantized, name, byte=form.byte)
    settings = ConversionSettings(batch=1, onnx_activations=form.byte)
    converter = _converter(form.format)
    if isinstance(converter, QuantizingConverter) and alone.spec.recipe in converter.recipes:
        converter.convert(alone.graph, destination, settings, alone)
    else:
        converter.convert(alone.graph, destination, settings)
    return OperatorFile(path=destination, form=form.of(alone))
