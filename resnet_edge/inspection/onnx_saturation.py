"""How much of an ONNX file's integer arithmetic may be cut off on x86 without VNNI.

ONNX Runtime's kernels for uint8 features and int8 weights multiply bytes there with ``vpmaddubsw``, which
adds two neighbouring products and holds the sum between -2**15 and 2**15 - 1. With features of up to 255 that
is too little for some pairs of large weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from resnet_edge.inspection.onnx_arithmetic import arithmetic
from resnet_edge.inspection.onnx_file import read_onnx, rejecting_damaged
from resnet_edge.inspection.onnx_shapes import graphs_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.inspection.onnx_arithmetic import Arithmetic

MOST = (2**15 - 1) // 255
"""The largest sum of two weights of one sign, whose products fit whatever the features are."""


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """What may be cut off.

    Attributes:
        operators: Operators with uint8 features and int8 weights.
        affected: Those of them with a pair of weights whose products may not fit.
        mac_share: Share (0 to 1) of these operators' multiply-accumulates that are part of such a pair.
    """

    operators: int
    affected: int
    mac_share: float

    def __str__(self) -> str:
        return (
            f"{self.affected} of {self.operators} operator(s) may lose sums beyond 16 bits on a processor "
            f"with AVX2 but no VNNI, as this one ({self.mac_share:.1%} of their multiply-accumulates)"
        )


def saturation(path: Path) -> Saturation:
    """What the weights of an .onnx file leave possible; how often it happens, the features decide.

    Raises:
        ModelRejectedError: The file cannot be read, is not ONNX, or is damaged.
    """
    products = [product for product in arithmetic(read_onnx(path)) if _may_saturate(product)]
    with rejecting_damaged(path):
        weights = _constants(path, {product.weights_from for product in products})
        found = [
            (pair_share(_by_output(product, weights[product.weights_from])), product.macs or 0)
            for product in products
            if product.weights_from in weights
        ]
    macs = sum(macs for _, macs in found)
    return Saturation(
        operators=len(found),
        affected=sum(share > 0 for share, _ in found),
        mac_share=sum(share * macs for share, macs in found) / macs if macs else 0.0,
    )


def pair_share(weight: NDArray[np.int8]) -> float:
    """Share of the weights (outputs, taps) whose pair of products may not fit into 16 bits."""
    taps = weight.shape[1] + weight.shape[1] % 2
    padded = np.zeros((len(weight), taps), np.int32)
    padded[:, : weight.shape[1]] = weight
    pairs = padded.reshape(len(weight), -1, 2)
    above, below = np.maximum(pairs, 0).sum(axis=2), np.minimum(pairs, 0).sum(axis=2)
    return float(((above > MOST) | (below < -MOST)).mean()) if pairs.size else 0.0


def _may_saturate(product: Arithmetic) -> bool:
    return product.features == "uint8" and product.weights == "int8"


def _constants(path: Path, names: set[str]) -> dict[str, NDArray[np.int8]]:
    """The constants of these names, as far as they are in the file itself."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for graph in graphs_in(ModelProto.FromString(path.read_bytes()).graph)
        for tensor in _inside(graph.initializer)
        if tensor.name in names
    }


def _inside(tensors: Iterable[TensorProto]) -> Iterable[TensorProto]:
    return (tensor for tensor in tensors if tensor.data_location != TensorProto.EXTERNAL)


def _by_output(product: Arithmetic, weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """A weight as (outputs, taps), the taps in the order in which kernels go through them: channels last."""
    if product.convolution:
        if weight.shape[1] == 1:  # depthwise: a kernel of its own, which adds up in 32 bits
            return np.zeros((len(weight), 0), np.int8)
        return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
    matrix: NDArray[np.int8] = weight.reshape(-1, *weight.shape[-2:])[0]
    return matrix if product.transposed else matrix.T
