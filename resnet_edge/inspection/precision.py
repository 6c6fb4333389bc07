"""What a model file computes in, told from its content: another tool's file names no recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from resnet_edge.inspection.files import file_format

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from resnet_edge.inspection.onnx_file import OnnxFile
    from resnet_edge.inspection.tflite_file import Tensor, TFLiteFile

Precision: TypeAlias = Literal["int8", "int16x8", "int8-weights", "fp16", "fp32"]
"""Named like the recipe that comes to the same; the coarsest first."""

_ORDER: tuple[Precision, ...] = ("int8", "int16x8", "int8-weights", "fp16", "fp32")

_BYTES = ("int8", "uint8", "int4", "uint4")

Factors: TypeAlias = tuple[str, str]
"""The element types in which an operator's features and weights are kept."""


def guess_precision(path: Path) -> Precision:
    """The coarsest arithmetic of any operator that multiplies; ``fp32`` where none does.

    A file with a single int8 convolution has int8's error, whatever the rest is computed in.

    Raises:
        ModelRejectedError: The file is no readable TFLite or ONNX model.
    """
    # Each format's packages are imported only when a file of it is looked into.
    if file_format(path) == "tflite":
        from resnet_edge.inspection.tflite_file import read_tflite, rejecting_damaged

        with rejecting_damaged(path):
            found = {_precision(*factors) for factors in _tflite_factors(read_tflite(path))}
    else:
        from resnet_edge.inspection.onnx_file import read_onnx, rejecting_damaged

        with rejecting_damaged(path):
            found = {_precision(*factors) for factors in _onnx_factors(read_onnx(path))}
    return next((precision for precision in _ORDER if precision in found), "fp32")


def _precision(features: str, weights: str) -> Precision:
    if weights in _BYTES:
        if features in _BYTES:
            return "int8"
        return "int16x8" if features == "int16" else "int8-weights"
    return "fp16" if weights == "float16" else "fp32"


def _tflite_factors(file: TFLiteFile) -> Iterator[Factors]:
    """Of every operator that multiplies; weights that are dequantized first count as what they were."""
    from resnet_edge.inspection.tflite import factors, multiplies

    for subgraph in file.subgraphs:
        kept: dict[Tensor | None, Tensor | None] = {
            operator.outputs[0]: operator.inputs[0]
            for operator in subgraph.operators
            if operator.name == "DEQUANTIZE"
        }
        for operator in filter(multiplies, subgraph.operators):
            features, weights, _ = factors(operator)
            stored = kept.get(weights) or weights
            yield features.dtype, stored.dtype


def _onnx_factors(file: OnnxFile) -> Iterator[Factors]:
    """Of every operator that multiplies; integers made from real numbers on the fly count as real numbers."""
    from resnet_edge.inspection.onnx_arithmetic import arithmetic

    # Tools that quantize on the fly do it everywhere: the two never mix in one file.
    on_the_fly = any(node.op_type == "DynamicQuantizeLinear" for node in file.nodes)
    for product in arithmetic(file):
        yield "float32" if on_the_fly else product.features, product.weights
