"""A report on any .tflite file: its interface, operators, parameters, arithmetic, and the part in int8."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from resnet_edge.inspection.report import FileReport, OperatorCount, TensorInfo
from resnet_edge.inspection.tflite_file import read_tflite, rejecting_damaged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    from resnet_edge.inspection.tflite_file import Operator, Subgraph, Tensor, TFLiteFile

    Shape: TypeAlias = tuple[int | None, ...]

WEIGHT_INPUT = {
    "BATCH_MATMUL": 1,
    "CONV_2D": 1,
    "CONV_3D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
}
"""The operators that multiply and accumulate, and which input they multiply with."""

BIAS_INPUT = {
    "CONV_2D": 2,
    "CONV_3D": 2,
    "DEPTHWISE_CONV_2D": 2,
    "FULLY_CONNECTED": 2,
    "TRANSPOSE_CONV": 3,
}
"""The inputs in which 32- and 64-bit integers are weights, not shapes, axes or positions."""

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")

FLOATS = ("float32", "float16", "bfloat16", "float64")

AT_MOST_8_BITS = ("int8", "uint8", "int4", "uint4", "int2")


def inspect_tflite(path: Path) -> FileReport:
    """Look into a .tflite file, also one that another tool wrote.

    Parameters are the elements of the constants that operators take. Numbers without dimensions are left
    out, and so are 32- and 64-bit integers unless they are a bias: those are shapes, axes and paddings.
    Multiply-accumulates are those of the operators in :data:`WEIGHT_INPUT`.

    Raises:
        ModelRejectedError: The file cannot be read, is not TFLite, or is damaged.
    """
    file = read_tflite(path)
    with rejecting_damaged(path):
        return _report(file)


def _report(file: TFLiteFile) -> FileReport:
    main = file.subgraphs[0]
    operators = [operator for subgraph in file.subgraphs for operator in subgraph.operators]
    macs = [(_macs(operator), _runs_in_int8(operator)) for operator in operators if multiplies(operator)]
    known = [count for count, _ in macs if count is not None]
    total = sum(known) if len(known) == len(macs) else None
    in_int8 = sum(count for count, int8 in macs if int8 and count is not None)
    return FileReport(
        format="tflite",
        size=file.size,
        version=f"schema {file.schema_version}",
        producer=file.description,
        inputs=_interface(file, main, main.inputs),
        outputs=_interface(file, main, main.outputs),
        operators=_counts(operators),
        parameters=_parameters(operators),
        macs=total,
        int8_mac_share=in_int8 / total if total else None,
        float_operators=_counts(operator for operator in operators if _computes_in_float(operator)),
        metadata={name: _readable(content) for name, content in file.metadata.items()},
        notes=tuple(_notes(file, operators)),
    )


def _interface(file: TFLiteFile, main: Subgraph, places: Iterable[int]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=file.signature.get(place, main.tensors[place].name),
            shape=main.tensors[place].shape,
            dtype=main.tensors[place].dtype,
            quantization=main.tensors[place].quantization,
        )
        for place in places
    )


def _counts(operators: Iterable[Operator]) -> tuple[OperatorCount, ...]:
    counts = Counter((operator.name, operator.custom) for operator in operators)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(OperatorCount(name=name, count=count, custom=custom) for (name, custom), count in ordered)


def _parameters(operators: Iterable[Operator]) -> int:
    weights = {
        tensor
        for operator in operators
        for place, tensor in enumerate(operator.inputs)
        if tensor is not None and _is_weight(tensor, is_bias=BIAS_INPUT.get(operator.name) == place)
    }
    return sum(_product(tensor.shape) or 0 for tensor in weights)


def _is_weight(tensor: Tensor, *, is_bias: bool) -> bool:
    counted = is_bias or tensor.dtype not in ("int32", "int64", "bool", "string")
    return tensor.constant and bool(tensor.shape) and counted


def multiplies(operator: Operator) -> bool:
    """Whether it is one of :data:`WEIGHT_INPUT`."""
    return operator.name in WEIGHT_INPUT and not operator.custom


def factors(operator: Operator) -> tuple[Tensor, Tensor, Tensor]:
    """The features, the weights and the result of an operator that multiplies.

    Raises:
        ValueError: It lacks one: the file is damaged.
    """
    place = WEIGHT_INPUT[operator.name]
    features = operator.inputs[2 if operator.name == "TRANSPOSE_CONV" else 0]
    weights, result = operator.inputs[place], operator.outputs[0]
    if features is None or weights is None or result is None:
        raise ValueError(f"an operator {operator.name} lacks an input")
    return features, weights, result


def _macs(operator: Operator) -> int | None:
    """Multiply-accumulates for one image: the first dimension is the batch."""
    features, weights, result = factors(operator)
    match operator.name:
        case "CONV_2D":  # (out, height, width, in / groups)
            shape = result.shape[1:] + weights.shape[1:]
        case "DEPTHWISE_CONV_2D":  # (1, height, width, out)
            shape = result.shape[1:] + weights.shape[1:3]
        case "CONV_3D":  # (depth, height, width, in, out)
            shape = result.shape[1:] + weights.shape[:4]
        case "TRANSPOSE_CONV":  # (out, height, width, in)
            shape = features.shape[1:] + weights.shape[:3]
        case "FULLY_CONNECTED":  # (out, in)
            shape = result.shape[1:] + weights.shape[1:]
        case _:  # BATCH_MATMUL; either factor may be transposed
            shape = (*result.shape[1:], _inner(features.shape, result.shape))
    return _product(shape)


def _inner(factor: Shape, product: Shape) -> int | None:
    """The dimension that a matrix product sums over: what the first factor has besides the product's rows."""
    size, rows = _product(factor[-2:]), product[-2]
    return size // rows if size is not None and rows else None


def _product(shape: Shape) -> int | None:
    known = [extent for extent in shape if extent is not None]
    return math.prod(known) if len(known) == len(shape) else None


def _runs_in_int8(operator: Operator) -> bool:
    features, weights, _ = factors(operator)
    return features.dtype in AT_MOST_8_BITS and weights.dtype in AT_MOST_8_BITS


def _computes_in_float(operator: Operator) -> bool:
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
    return operator.name not in CONVERSIONS and any(tensor.dtype in FLOATS for tensor in tensors)


def _needless_conversions(operators: Iterable[Operator]) -> int:
    """How many tensors are dequantized for nothing but to be quantized again."""
    takers: dict[Tensor | None, set[str]] = {}
    dequantized: set[Tensor | None] = set()
    for operator in operators:
        for tensor in operator.inputs:
            takers.setdefault(tensor, set()).add(operator.name)
        if operator.name == "DEQUANTIZE":
            dequantized.update(operator.outputs)
    return sum(takers.get(tensor) == {"QUANTIZE"} for tensor in dequantized)


def _readable(content: bytes) -> str:
    """A metadata entry as text, or its size where it is none."""
    try:
        text = content.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return f"({len(content):,} bytes)"
    shown = all(character.isprintable() or character.isspace() for character in text)
    return text if shown else f"({len(content):,} bytes)"


def _notes(file: TFLiteFile, operators: Collection[Operator]) -> Iterator[str]:
    custom = sorted({operator.name for operator in operators if operator.custom})
    if custom:
        yield f"needs a runtime with the custom operators {', '.join(custom)}"
    hybrid = [operator for operator in operators if multiplies(operator) and _is_hybrid(operator)]
    if hybrid:
        yield (
            f"{len(hybrid)} operator(s) have 8-bit weights and float features: "
            "the runtime quantizes the features on the fly (dynamic range)"
        )
    needless = _needless_conversions(operators)
    if needless:
        yield f"{needless} tensor(s) are dequantized only to be quantized again"
    if len(file.subgraphs) > 1:
        yield (
            f"holds {len(file.subgraphs)} graphs: inputs and outputs are the first one's, "
            "operators are counted once in each"
        )
    if not file.signature:
        yield "has no signature: the names are those of the tensors"


def _is_hybrid(operator: Operator) -> bool:
    features, weights, _ = factors(operator)
    return features.dtype == "float32" and weights.dtype in AT_MOST_8_BITS
