"""A report on any .onnx file: its interface, operators, parameters, arithmetic, and the part in int8."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_edge.engines.cpu import saturating_uint8_kernels
from resnet_edge.inspection.onnx_arithmetic import arithmetic
from resnet_edge.inspection.onnx_file import read_onnx, rejecting_damaged, tensor_of
from resnet_edge.inspection.onnx_saturation import saturation
from resnet_edge.inspection.report import FileReport, OperatorCount, Quantization, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from onnx import NodeProto, ValueInfoProto

    from resnet_edge.inspection.onnx_arithmetic import Arithmetic
    from resnet_edge.inspection.onnx_file import OnnxFile

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")

_SETTINGS = {
    "ConvInteger": (2, 3),
    "DequantizeLinear": (1, 2),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "Resize": (1, 2, 3),
}
"""The inputs of real or small integer numbers that are no weights: scales, zero points, factors."""

_INTEGER_BIAS = {"DequantizeLinear": 0, "QGemm": 6, "QLinearConv": 8}
"""The inputs in which 32-bit integers are a bias, not a shape, an axis or a position."""


def inspect_onnx(path: Path) -> FileReport:
    """Look into an .onnx file, also one that another tool wrote.

    Parameters are the elements of the constants that operators take. Numbers without dimensions are left
    out, and so are scales and zero points, and 32- and 64-bit integers unless they are a bias.
    Multiply-accumulates are those of convolutions and matrix products.

    Raises:
        ModelRejectedError: The file cannot be read, is not ONNX, or is damaged.
    """
    file = read_onnx(path)
    with rejecting_damaged(path):
        report = _report(file)
    if saturating_uint8_kernels():
        found = saturation(path)
        if found.affected:
            return replace(report, notes=(*report.notes, str(found)))
    return report


def _report(file: OnnxFile) -> FileReport:
    model = file.model
    products = list(arithmetic(file))
    known = [product.macs for product in products if product.macs is not None]
    total = sum(known) if len(known) == len(products) else None
    in_int8 = sum(product.macs for product in products if product.int8 and product.macs is not None)
    opsets = ", ".join(
        f"opset {entry.version}"
        if entry.domain in STANDARD_DOMAINS[:2]
        else f"{entry.domain} {entry.version}"
        for entry in sorted(model.opset_import, key=lambda entry: entry.domain)
    )
    return FileReport(
        format="onnx",
        size=file.size,
        version=f"{opsets}, IR {model.ir_version}",
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(_interface(file, _inputs(file))),
        outputs=tuple(_interface(file, model.graph.output)),
        operators=_counts(file.nodes),
        parameters=_parameters(file),
        macs=total,
        int8_mac_share=in_int8 / total if total else None,
        metadata={entry.key: entry.value for entry in model.metadata_props},
        notes=tuple(_notes(file, products)),
    )


def _inputs(file: OnnxFile) -> Iterator[ValueInfoProto]:
    """What a caller has to give; older files list the constants among the inputs."""
    return (value for value in file.model.graph.input if value.name not in file.constants)


def _interface(file: OnnxFile, values: Iterable[ValueInfoProto]) -> Iterator[TensorInfo]:
    quantizations = dict(_quantizations(file))
    for value in values:
        tensor = tensor_of(value)
        yield TensorInfo(
            name=value.name,
            shape=tensor.shape or (),
            dtype=tensor.dtype,
            quantization=quantizations.get(value.name) if "int" in tensor.dtype else None,
        )


def _quantizations(file: OnnxFile) -> Iterator[tuple[str, Quantization]]:
    """The scale and zero point of each tensor that is quantized, or dequantized, as a whole."""
    for node in file.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) == 3:
            scale, zero_point = (file.values.get(name) for name in node.input[1:])
            if scale is not None and zero_point is not None and scale.size == zero_point.size == 1:
                name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
                yield (
                    name,
                    Quantization(scales=(float(scale.flat[0]),), zero_points=(int(zero_point.flat[0]),)),
                )


def _counts(nodes: Iterable[NodeProto]) -> tuple[OperatorCount, ...]:
    counts = Counter((_operator_name(node), node.domain not in STANDARD_DOMAINS) for node in nodes)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(OperatorCount(name=name, count=count, custom=custom) for (name, custom), count in ordered)


def _operator_name(node: NodeProto) -> str:
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"


def _parameters(file: OnnxFile) -> int:
    weights = {
        name
        for node in file.nodes
        for place, name in enumerate(node.input)
        if name in file.constants
        and place not in _SETTINGS.get(node.op_type, ())
        and _is_weight(file, name, is_bias=_INTEGER_BIAS.get(node.op_type) == place)
    }
    return sum(math.prod(_extents(file, name)) for name in weights)


def _is_weight(file: OnnxFile, name: str, *, is_bias: bool) -> bool:
    counted = is_bias or file.tensor(name).dtype not in ("int32", "int64", "bool", "str")
    return counted and bool(file.tensor(name).shape)


def _extents(file: OnnxFile, constant: str) -> Iterator[int]:
    return (extent for extent in file.tensor(constant).shape or () if isinstance(extent, int))


def _notes(file: OnnxFile, products: Collection[Arithmetic]) -> Iterator[str]:
    yield from file.notes
    custom = sorted({_operator_name(node) for node in file.nodes if node.domain not in STANDARD_DOMAINS})
    if custom:
        yield f"needs a runtime with the operators {', '.join(custom)}"
    signed = sum(product.int8 and product.features == "int8" for product in products)
    if signed:
        yield f"{signed} operator(s) have int8 features: ONNX Runtime on x86 leaves some in float, uint8 none"
    weights_only = sum(product.int8_weights_only for product in products)
    if weights_only:
        yield f"{weights_only} operator(s) have 8-bit weights and float features"
    if len(file.nodes) > len(file.model.graph.node):
        yield "holds loops or branches: the operators in their bodies are counted once"
