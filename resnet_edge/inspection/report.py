"""The result of looking into a model file: the same for every format, ready for ``dataclasses.asdict``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.inspection.weights import WeightFigures

Extent: TypeAlias = int | str | None
"""One dimension of a shape in a file: a number, a symbol (ONNX), or None where it is open."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How integers stand for real numbers: ``scale * (q - zero_point)``.

    Attributes:
        scales: One scale, or one a channel.
        zero_points: As many as there are scales.
        axis: The channel dimension; None with a single scale.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """An input or an output of the model.

    Attributes:
        name: As the signature names it; where there is none, as the graph does.
        shape: All dimensions, the batch included.
        dtype: NumPy's name of the element type (``float32``, ``int8``, ...).
        quantization: None for a tensor of real numbers.
    """

    name: str
    shape: tuple[Extent, ...]
    dtype: str
    quantization: Quantization | None = None


@dataclass(frozen=True, kw_only=True)
class OperatorCount:
    """How often one kind of operator occurs.

    Attributes:
        name: The format's own name (``CONV_2D``, ``Conv``).
        count: Number of operators.
        custom: Whether the operator is outside the format's standard set, so that a runtime may lack it.
    """

    name: str
    count: int
    custom: bool = False


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What a model file holds.

    Attributes:
        format: ``tflite`` or ``onnx``.
        size: Bytes, external data included.
        version: The version of the format (``schema 3``, ``opset 17, IR 8``).
        producer: Who wrote the file, in its own words; empty where it does not say.
        inputs: The model's inputs in order.
        outputs: The model's outputs in order.
        operators: Most frequent first, then by name.
        parameters: Number of constants that are weights; shapes, axes, paddings and scales are not.
        macs: Multiply-accumulates for one image; None when a shape that decides them is unknown.
        int8_mac_share: Share (0 to 1) of ``macs`` with 8-bit weights and activations; None without MACs.
        float_operators: Those that compute with real numbers; conversions to and from integers do not. None
            where nobody has looked.
        gzip_size: Bytes of the file under gzip; None where nobody has packed it.
        weights: Tensors of weights, of two dimensions or more; None where nobody has looked.
        metadata: The texts kept in the file.
        notes: What is worth knowing besides, one sentence each.
    """

    format: str
    size: int
    version: str
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: tuple[OperatorCount, ...]
    parameters: int
    macs: int | None
    int8_mac_share: float | None
    float_operators: tuple[OperatorCount, ...] | None = None
    gzip_size: int | None = None
    weights: tuple[WeightFigures, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
