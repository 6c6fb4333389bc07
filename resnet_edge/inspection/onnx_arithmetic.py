"""How much an ONNX model multiplies, and how much of that in 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import NodeProto

    from resnet_edge.inspection.onnx_file import OnnxFile, OnnxTensor
    from resnet_edge.inspection.report import Extent

_CONVOLUTIONS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "FusedConv": (0, 1),
    "NhwcFusedConv": (0, 1),
    "QLinearConv": (0, 3),
}
_MATRIX_PRODUCTS = {
    "FusedGemm": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "QGemm": (0, 3),
    "QLinearMatMul": (0, 3),
}
FACTORS = _CONVOLUTIONS | _MATRIX_PRODUCTS
"""The operators that multiply and accumulate, ONNX Runtime's own among them, and the inputs they multiply."""

_MOVES = ("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that hand on the values of their first input."""

_AT_MOST_8_BITS = ("int8", "uint8", "int4", "uint4")


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What one operator multiplies.

    Attributes:
        macs: Multiply-accumulates for one image; None where a shape that decides them is unknown.
        features: Element type in which the features are kept.
        weights: Element type in which the weights are kept.
        weights_from: Name of the tensor in which they are.
        convolution: Whether the weights are (out, in / groups, ...); else they are a matrix.
        transposed: Whether the matrix is (out, in).
    """

    macs: int | None
    features: str
    weights: str
    weights_from: str = ""
    convolution: bool = False
    transposed: bool = False

    @property
    def int8(self) -> bool:
        """Whether both factors have 8 bits or less."""
        return self.features in _AT_MOST_8_BITS and self.weights in _AT_MOST_8_BITS

    @property
    def int8_weights_only(self) -> bool:
        """Whether only the weights have, and the features are known to be real numbers."""
        return "float" in self.features and self.weights in _AT_MOST_8_BITS


def arithmetic(file: OnnxFile) -> Iterator[Arithmetic]:
    """What each operator that multiplies does, in the file's order.

    An operator between DequantizeLinear and QuantizeLinear counts as what the quantized values are: runtimes
    fuse the three.
    """
    producers = {name: node for node in file.nodes for name in node.output}
    shape = file.tensor(file.model.graph.input[0].name).shape if file.model.graph.input else None
    batch = shape[0] if shape else None
    for node in file.nodes:
        if node.op_type in FACTORS:
            features, weights = (node.input[place] for place in FACTORS[node.op_type])
            kept_in, kept_as = _kept(weights, file, producers)
            yield Arithmetic(
                macs=_macs(node, file, batch),
                features=_kept(features, file, producers)[1],
                weights=kept_as,
                weights_from=kept_in,
                convolution=node.op_type in _CONVOLUTIONS,
                transposed=_is_transposed(node),
            )


def _macs(node: NodeProto, file: OnnxFile, batch: Extent) -> int | None:
    places = FACTORS[node.op_type]
    features, weights = (file.tensor(node.input[place]).shape for place in places)
    result = file.tensor(node.output[0]).shape
    if not features or not weights or not result:
        return None
    if node.op_type == "ConvTranspose":  # every input value meets (out / groups, height, width) weights
        return _product((_for_one_image(features[0], batch), *features[1:], *weights[1:]))
    results = (_for_one_image(result[0], batch), *result[1:])
    if node.op_type in _CONVOLUTIONS:  # every output value sums (in / groups, height, width) products
        return _product((*results, *weights[1:]))
    return _product((*results, weights[-1 if _is_transposed(node) or len(weights) == 1 else -2]))


def _is_transposed(node: NodeProto) -> bool:
    return any(entry.name == "transB" and entry.i for entry in node.attribute)


def _for_one_image(extent: Extent, batch: Extent) -> int:
    """The first dimension's share of one image, where it counts images, or images times something else."""
    if not isinstance(extent, int):
        return 1
    return extent // batch if isinstance(batch, int) and batch and extent % batch == 0 else extent


def _product(extents: tuple[Extent, ...]) -> int | None:
    known = [extent for extent in extents if isinstance(extent, int)]
    return math.prod(known) if len(known) == len(extents) else None


def _kept(name: str, file: OnnxFile, producers: Mapping[str, NodeProto]) -> tuple[str, str]:
    """Name and element type of a tensor, or of the quantized one that it is made from."""
    seen = set()
    while name in producers and name not in seen:  # a damaged file may go in circles
        seen.add(name)
        node = producers[name]
        if node.op_type == "DequantizeLinear":
            return node.input[0], _quantized_type(node, file)
        if node.op_type not in _MOVES:
            break
        name = node.input[0]
    return name, file.tensor(name).dtype


def _quantized_type(dequantize: NodeProto, file: OnnxFile) -> str:
    """The type it dequantizes; where inference did not say (operators of other domains), its zero point's."""
    types: list[OnnxTensor] = [file.tensor(name) for name in (dequantize.input[0], *dequantize.input[2:3])]
    return next((tensor.dtype for tensor in types if tensor.dtype), "")
