"""From a float graph, a recipe and statistics to a spec and its integers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import UsageError
from resnet_edge.graph import INPUT_NAME
from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D
from resnet_edge.quantization import groups as grouping
from resnet_edge.quantization.addition_scales import align_additions
from resnet_edge.quantization.bias_correction import exact_shift, mean_shift
from resnet_edge.quantization.half import half_precision
from resnet_edge.quantization.limits import MOST_BIAS, enforce, weight_scales_within
from resnet_edge.quantization.overrides import resolve
from resnet_edge.quantization.rounding import round_weight
from resnet_edge.quantization.scales import initial_groups, tensor_quants
from resnet_edge.quantization.spec import ConstantQuant, Quantized, QuantSpec
from resnet_edge.quantization.weights import (
    CHANNEL_AXIS,
    dequantize_weight,
    matrix,
    natural_scales,
    quantize_weight,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.quantization.input_moments import InputMoments
    from resnet_edge.quantization.recipes import Recipe
    from resnet_edge.quantization.spec import ActivationType, IoType, TensorQuant
    from resnet_edge.quantization.statistics import Statistics
    from resnet_edge.quantization.weights import Linear, Scales


def quantize_graph(
    graph: Graph,
    recipe: Recipe,
    statistics: Statistics | None = None,
    *,
    io: IoType = "float32",
    overrides: Sequence[str] = (),
    input_range: tuple[float, float] | None = None,
    moments: Mapping[str, InputMoments] | None = None,
) -> Quantized:
    """Decide every scale and every integer.

    Args:
        graph: The folded float graph; with ``recipe.equalize`` what
            :func:`~resnet_edge.quantization.equalization.equalize` made of it.
        recipe: What is to become of it.
        statistics: Of the same graph; integer recipes need them, ``fp16`` uses them to find overflows.
        io: Element type of the artifacts' input and output.
        overrides: Exceptions as ``PATTERN=RULE``; of several for one node the last holds.
        input_range: Smallest and largest model input by the preprocessing contract, which images may not
            reach; (0, 255) gives the input scale 1.
        moments: Of the inputs of weighted nodes, by :func:`~resnet_edge.quantization.input_moments.measure`:
            weights are then rounded for these inputs, else each to its nearest integer.

    Raises:
        UsageError: ``io``, or an override, does not fit.
        ModelRejectedError: An operator has no integer form, or no scales are within the kernels' limits.
        DataRejectedError: Statistics are missing or not finite; names the tensor.
    """
    recipe.check_io(io)
    exceptions = resolve(overrides, graph)
    kept = {name: f"--override {item}" for name, item in exceptions.items() if item.rule == "float"}
    if recipe.arithmetic == "float16":
        return half_precision(graph, recipe, statistics, kept)
    per_tensor = frozenset(name for name, item in exceptions.items() if item.rule == "int8-per-tensor")
    if recipe.arithmetic == "weights":
        return _weights_only(graph, recipe, kept, per_tensor)
    if statistics is None:
        raise UsageError(
            f"recipe {recipe.name!r} needs calibration images",
            where="--calibration",
            next_step="pass images like those that the model will see",
        )
    return _IntegerQuantization(
        graph,
        recipe,
        statistics,
        kept=kept,
        per_tensor=per_tensor,
        io=io,
        input_range=input_range,
        moments=moments or {},
    ).result()


def _weights_only(
    graph: Graph, recipe: Recipe, kept: Mapping[str, str], per_tensor: frozenset[str]
) -> Quantized:
    """Integer weights for float arithmetic; biases stay float."""
    constants: dict[str, NDArray[np.generic]] = {}
    quants: dict[str, ConstantQuant] = {}
    for node in graph.nodes:
        if node.name in kept or not isinstance(node.op, Conv2D | DepthwiseConv2D | Dense):
            continue
        natural = natural_scales(
            node.op,
            per_channel=recipe.per_channel and node.name not in per_tensor,
            weight_range=recipe.weight_range,
        )
        # A weight of zeros is zeros at any scale.
        scales = np.where(natural > 0, natural, 1.0).astype(np.float32)
        name = f"{node.name}/weight"
        constants[name] = quantize_weight(node.op, scales)
        quants[name] = _weight_quant(node.op, scales)
    spec = QuantSpec(recipe=recipe.base, tensors={}, constants=quants, kept_float=dict(kept))
    return Quantized(graph=graph, spec=spec, constants=constants)


def _weight_quant(op: Linear, scales: Scales) -> ConstantQuant:
    axis = CHANNEL_AXIS[type(op)] if scales.size > 1 else None
    return ConstantQuant(dtype="int8", scales=tuple(scales.tolist()), axis=axis)


class _IntegerQuantization:
    """One run of an integer recipe; the arguments are those of :func:`quantize_graph`."""

    def __init__(
        self,
        graph: Graph,
        recipe: Recipe,
        statistics: Statistics,
        *,
        kept: Mapping[str, str],
        per_tensor: frozenset[str],
        io: IoType,
        input_range: tuple[float, float] | None,
        moments: Mapping[str, InputMoments],
    ) -> None:
        grouping.check_operators(graph, kept)
        if recipe.arithmetic == "int16x8":
            # Observers clip for 8 bits; with 16 there is nothing to gain by clipping.
            statistics = replace(statistics, ranges=statistics.observed)
        self._graph, self._recipe, self._statistics, self._io = graph, recipe, statistics, io
        self._moments = moments
        self._dtype: ActivationType = "int16" if recipe.arithmetic == "int16x8" else "int8"
        self._integer, self._float = grouping.integer_nodes(graph, kept)
        self._tensors = self._quantized_tensors()
        self._natural = {
            node.name: natural_scales(
                op,
                per_channel=recipe.per_channel and node.name not in per_tensor,
                weight_range=recipe.weight_range,
            )
            for node, op in self._linear_nodes()
        }
        self._scales = self._tensor_quants(input_range)

    def _quantized_tensors(self) -> frozenset[str]:
        """The tensors that an integer operator takes or gives; others would lose precision for nothing."""
        found = set(self._integer)
        for name in self._integer:
            found.update(self._graph.by_name[name].inputs)
        for end, what in ((INPUT_NAME, "input"), (self._graph.output, "output")):
            if self._io != "float32" and end not in found:
                raise UsageError(
                    f"the {what} cannot be {self._io}: its layer stays float",
                    where="--io",
                    found=self._float.get(end, "nothing computes with integers there"),
                )
        return frozenset(found)

    def _linear_nodes(self) -> list[tuple[Node, Linear]]:
        return [
            (node, node.op)
            for node in self._graph.nodes
            if node.name in self._integer and isinstance(node.op, Conv2D | DepthwiseConv2D | Dense)
        ]

    def _tensor_quants(self, input_range: tuple[float, float] | None) -> dict[str, TensorQuant]:
        group_of = initial_groups(
            self._graph,
            grouping.shared_scales(self._graph, self._integer),
            self._statistics,
            self._dtype,
            tensors=self._tensors,
            integer=self._integer,
            input_range=input_range,
        )
        if self._dtype == "int8":  # with 16 bits, rounding is next to nothing
            align_additions(self._graph, self._integer, group_of)
        enforce(self._graph, self._integer, group_of, self._natural)
        return tensor_quants(
            self._graph, self._tensors, group_of, self._statistics, self._dtype, integer=self._integer
        )

    def result(self) -> Quantized:
        """The spec with its integers."""
        constants: dict[str, NDArray[np.generic]] = {}
        quants: dict[str, ConstantQuant] = {}
        for node, op in self._linear_nodes():
            source = self._scales[node.inputs[0]]
            scales = weight_scales_within(
                op,
                self._natural[node.name],
                input_scale=source.scale,
                output_scale=self._scales[node.name].scale,
            )
            moments = self._moments.get(node.name)
            weight = quantize_weight(op, scales) if moments is None else round_weight(op, scales, moments)
            steps = np.float32(source.scale) * scales
            error = dequantize_weight(op, weight, scales) - matrix(op)
            bias = self._bias(node, op, error, steps)
            constants |= {f"{node.name}/weight": weight, f"{node.name}/bias": bias}
            quants[f"{node.name}/weight"] = _weight_quant(op, scales)
            quants[f"{node.name}/bias"] = ConstantQuant(
                dtype="int64" if self._dtype == "int16" else "int32",
                scales=tuple(steps.tolist()),
                axis=0 if steps.size > 1 else None,
            )
        spec = QuantSpec(
            recipe=self._recipe.base,
            io=self._io,
            tensors=self._scales,
            constants=quants,
            kept_float=self._float,
        )
        return Quantized(graph=self._graph, spec=spec, constants=constants)

    def _bias(
        self, node: Node, op: Linear, error: NDArray[np.float64], steps: Scales
    ) -> NDArray[np.int32 | np.int64]:
        """The bias in accumulator steps, corrected where the recipe says so and the result fits."""
        real = op.bias.astype(np.float64)
        integers = np.rint(real / steps)
        if self._recipe.bias_correction:
            corrected = np.rint((real - self._shift(node, op, error)) / steps)
            integers = np.where(np.abs(corrected) <= MOST_BIAS, corrected, integers)
        return integers.astype(np.int64 if self._dtype == "int16" else np.int32)

    def _shift(self, node: Node, op: Linear, error: NDArray[np.float64]) -> NDArray[np.float64] | float:
        """What the weights' error adds to each output channel on average, as well as it is known."""
        source = node.inputs[0]
        if node.name in self._moments:
            return exact_shift(error, self._moments[node.name])
        if source in self._statistics.channel_means:
            means = self._statistics.channel_means[source]
            return mean_shift(op, error, means, self._graph.shapes[source])
        return 0.0
