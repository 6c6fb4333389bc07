"""The quantization spec: every scale and zero point, decided once; converters take it and decide nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping  # noqa: TC003 - records are read by the types of their fields
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from resnet_edge.errors import ModelRejectedError
from resnet_edge.records import read_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph

SCHEMA = 1
"""Raised when a reader of the older form would misread the newer one."""

ActivationType: TypeAlias = Literal["int8", "int16"]
ConstantType: TypeAlias = Literal["int8", "int32", "int64", "float16"]
IoType: TypeAlias = Literal["float32", "int8", "uint8"]


@dataclass(frozen=True, kw_only=True)
class TensorQuant:
    """How the integers of a node's output stand for real numbers: ``scale * (q - zero_point)``.

    Attributes:
        dtype: Element type.
        scale: A float32 value, above zero.
        zero_point: The integer that stands for 0.0, which is always exact.
        qmin: Smallest integer that occurs (a fused ReLU needs no clamp where it is the zero point).
        qmax: Largest integer that occurs.
        observed: Smallest and largest real number seen in calibration; None where the scale is fixed by rule.
        images: How many images were seen.
    """

    dtype: ActivationType
    scale: float
    zero_point: int
    qmin: int
    qmax: int
    observed: tuple[float, float] | None = None
    images: int = 0


@dataclass(frozen=True, kw_only=True)
class ConstantQuant:
    """How a constant is stored: ``scales[c] * q`` along ``axis``, symmetric; float16 has no scales.

    Attributes:
        dtype: Element type.
        scales: One float32 value a channel, or one for all; empty for float16.
        axis: The channel dimension in the graph's layout; None with one scale for all.
    """

    dtype: ConstantType
    scales: tuple[float, ...] = ()
    axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """Everything that a format has to be told.

    Attributes:
        recipe: Name of the recipe that it comes from.
        io: Element type of the artifacts' input and output.
        tensors: By node name. A node is computed in integers if it and all its inputs are here; any other in
            float, and a format puts conversions in between.
        constants: By ``<node>/weight``, ``<node>/bias``.
        kept_float: Nodes that stay float although the recipe is for all, by name, with the reason.
    """

    recipe: str
    io: IoType = "float32"
    tensors: Mapping[str, TensorQuant]
    constants: Mapping[str, ConstantQuant]
    kept_float: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values; tensors in the graph's order, so that equal specs give equal texts."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def text(self) -> str:
        """The spec as it is written to the bundle."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of :meth:`text`."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    @classmethod
    def from_json(cls, values: Any) -> QuantSpec:
        """The spec that :meth:`to_json` gave.

        Raises:
            ModelRejectedError: It is damaged, or of a newer schema.
        """
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise ModelRejectedError(
                "cannot read the quantization spec",
                found=f"schema {schema}",
                allowed=f"schema {SCHEMA}",
                next_step="quantize again, or upgrade resnet-edge",
            )
        try:
            return read_record(cls, values)
        except ValueError as error:
            raise ModelRejectedError("the quantization spec is damaged", found=str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A graph with its spec and its integers: what a converter writes, and what is compared with the file.

    Attributes:
        graph: The folded float graph whose numbers the integers stand for.
        spec: The scales.
        constants: ``<node>/weight`` (int8 or float16) and ``<node>/bias`` (int32, int64 or float16), in the
            graph's layout.
    """

    graph: Graph
    spec: QuantSpec
    constants: Mapping[str, NDArray[np.generic]]

    @classmethod
    def in_float(cls, graph: Graph) -> Quantized:
        """The graph as it is: a spec that names nothing leaves all of it float32."""
        return cls(graph=graph, spec=QuantSpec(recipe="fp32", tensors={}, constants={}), constants={})

    def is_integer(self, node: str) -> bool:
        """Whether a node is computed in integers."""
        inputs = self.graph.by_name[node].inputs
        return all(name in self.spec.tensors for name in (node, *inputs))
