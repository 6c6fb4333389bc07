"""The exact integer reference: a quantized graph executed in NumPy as its integers say.

Every converter's file computes this, up to the rounding that :mod:`.requantization` lists.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.graph.execution import execute_operator, stream
from resnet_edge.graph.operators import Input, Operator
from resnet_edge.quantization.integer_operators import (
    Constants,
    Setting,
    dequantize,
    quantize,
    run_integer_operator,
)
from resnet_edge.quantization.requantization import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resnet_edge.graph import Node
    from resnet_edge.quantization.requantization import Kernels
    from resnet_edge.quantization.spec import Quantized

Tensor: TypeAlias = NDArray[Any]

IMAGES_AT_A_TIME = 32
"""Bounds the memory of a run; larger batches are no faster."""


def run_integer(
    quantized: Quantized, images: NDArray[np.float32], *, kernels: Kernels = "single"
) -> NDArray[np.float32]:
    """The model's outputs, (N, classes), dequantized, for model inputs (N, height, width, channels).

    Raises:
        ValueError: The images have another shape than the graph's input, or there are none.
    """
    if not len(images):
        raise ValueError("takes at least one image")
    output = quantized.graph.output
    quant = quantized.spec.tensors.get(output)
    parts = []
    for start in range(0, len(images), IMAGES_AT_A_TIME):
        batch = images[start : start + IMAGES_AT_A_TIME]
        for node, tensor in run_integer_nodes(quantized, batch, kernels=kernels):
            if node.name == output:
                parts.append(tensor if quant is None else dequantize(tensor, quant))
    return np.concatenate(parts)


def run_integer_nodes(
    quantized: Quantized, images: NDArray[np.float32], *, kernels: Kernels = "single"
) -> Iterator[tuple[Node, Tensor]]:
    """Every node with its tensor, in order: integers where the spec has a scale for it, else float32.

    Raises:
        ValueError: The images have another shape than the graph's input.
    """
    return stream(
        quantized.graph, images, lambda node, inputs: run_operator(quantized, node, inputs, kernels=kernels)
    )


def run_operator(
    quantized: Quantized, node: Node, inputs: Sequence[Tensor], *, kernels: Kernels = "single"
) -> Tensor:
    """One node's tensor from its inputs' tensors (for the input node: from float32 images).

    A node that is not integer is executed in float, with conversions in front and behind.

    Raises:
        NotImplementedError: The node's operator has no integer form.
        ValueError: The spec gives an operator that only moves integers another scale than its input.
    """
    quant = quantized.spec.tensors.get(node.name)
    if isinstance(node.op, Input):
        (real,) = inputs
    elif quant is not None and quantized.is_integer(node.name):
        return _run_integer_node(quantized, node, inputs, kernels)
    else:
        real = _run_float_node(quantized, node, inputs)
    return real if quant is None else quantize(real, quant, ROUNDING[kernels, quant.dtype][Input])


def _run_integer_node(quantized: Quantized, node: Node, inputs: Sequence[Tensor], kernels: Kernels) -> Tensor:
    tensors = quantized.spec.tensors
    setting = Setting(
        inputs=tuple(tensors[name] for name in node.inputs),
        output=tensors[node.name],
        kernels=kernels,
        constants=_constants(quantized, node),
    )
    return run_integer_operator(node.op, setting, *inputs)


def _run_float_node(quantized: Quantized, node: Node, inputs: Sequence[Tensor]) -> Tensor:
    quants = [quantized.spec.tensors.get(name) for name in node.inputs]
    real = [
        tensor if quant is None else dequantize(tensor, quant)
        for tensor, quant in zip(inputs, quants, strict=True)
    ]
    return execute_operator(_stored_form(quantized, node), *real)


def _constants(quantized: Quantized, node: Node) -> Constants | None:
    """The node's integers; None for operators without constants."""
    weight, bias = f"{node.name}/weight", f"{node.name}/bias"
    if weight not in quantized.constants:
        return None
    scales = np.array(quantized.spec.constants[weight].scales, np.float32)
    return Constants(weight=quantized.constants[weight], bias=quantized.constants[bias], scales=scales)


def _stored_form(quantized: Quantized, node: Node) -> Operator:
    """The node's operator with its constants as they are stored, brought back to float32."""
    stored: dict[str, NDArray[np.float32]] = {}
    for role, original in node.op.weights().items():
        name = f"{node.name}/{role}"
        if name not in quantized.constants:
            continue
        values = quantized.constants[name].astype(np.float32)
        scales = np.array(quantized.spec.constants[name].scales or (1.0,), np.float32)
        if scales.size > 1:
            # A depthwise weight has its channels in the last two dimensions, all others in the last.
            channels = original.shape[-2:] if scales.size != original.shape[-1] else original.shape[-1:]
            scales = scales.reshape(channels)
        stored[role] = values * scales
    return replace(node.op, **stored) if stored else node.op  # type: ignore[type-var]
