"""Quantization-aware training: from a spec and its integers to a trainable model, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.finetuning.bridge import to_tf_keras, with_weights
from resnet_edge.finetuning.fake_quantization import LayerConfig, Step, TensorQuantizer, WeightScale
from resnet_edge.finetuning.frameworks import tfmot
from resnet_edge.finetuning.losses import logits_model
from resnet_edge.graph.operators import (
    AveragePool2D,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    GlobalMaxPool,
    Input,
    MaxPool2D,
    Pad,
    Reshape,
    Slice,
)
from resnet_edge.quantization.groups import is_fixed, shared_scales
from resnet_edge.quantization.limits import enforce, weight_scales_within
from resnet_edge.quantization.scales import ScaleGroup, tensor_quants
from resnet_edge.quantization.spec import Quantized
from resnet_edge.quantization.statistics import Statistics
from resnet_edge.quantization.weights import QMAX, least_accumulating, matrix, quantize_weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph, Node
    from resnet_edge.graph.operators import Weight
    from resnet_edge.quantization.spec import ConstantQuant, TensorQuant
    from resnet_edge.quantization.weights import Linear

_MOVERS = (Concat, GlobalMaxPool, MaxPool2D, Pad, Reshape, Slice)
"""Operators whose output is made of integers that they get: nothing is left to round."""

CELL = 0.45
"""How far from its integer, in steps, a weight may start: so that it starts as the integer that calibration
chose for it, and yet at the side on which the float weight is."""


@dataclass(frozen=True, kw_only=True)
class FakeQuantized:
    """A fake-quantized model that starts as what the spec and its integers compute.

    Attributes:
        model: Images to outputs, both float32.
        logits: The same without a softmax or sigmoid at the end.
        start: What it was made from.
        steps: By the name of a tensor, the step of its group.
        groups: By the name of a tensor, the first tensor of its group.
        configs: By the name of a node, how its layer is quantized.
        scales: By the name of a node, how its weight scales follow from its weights.
    """

    model: Any
    logits: Any
    start: Quantized
    steps: Mapping[str, Step]
    groups: Mapping[str, str]
    configs: Mapping[str, LayerConfig]
    scales: Mapping[str, WeightScale]

    @classmethod
    def of(cls, start: Quantized, *, keep_zeros: bool = False) -> FakeQuantized:
        """Wrap every layer of the graph.

        Args:
            start: An integer recipe's result.
            keep_zeros: Whether weights that are zero in the graph stay so.

        Raises:
            ModelRejectedError: An operator cannot be fine-tuned; names it.
        """
        graph = with_weights(start.graph, _starting_weights(start))
        groups = shared_scales(graph, [node.name for node in graph.nodes[1:] if start.is_integer(node.name)])
        steps = _steps(start, groups)
        scales = {
            name: _weight_scale(start, graph.by_name[name], steps, keep_zeros=keep_zeros)
            for name in _integer_linear(start)
        }
        configs = {
            node.name: LayerConfig(_output_quantizer(node, start, steps), scales.get(node.name))
            for node in graph.nodes
        }

        def wrap(node: Node, layer: Any) -> Any:
            return tfmot.quantization.keras.QuantizeWrapperV2(layer, configs[node.name])

        model = to_tf_keras(graph, wrap)
        return cls(
            model=model,
            logits=logits_model(model, graph),
            start=start,
            steps=steps,
            groups=groups,
            configs=configs,
            scales=scales,
        )

    @property
    def least_steps(self) -> int:
        """None: the model computes with integers all along."""
        return 0

    def settle(self) -> None:
        """Nothing has to be settled."""

    def result(self) -> Quantized:
        """The trained steps and weights as a spec with its integers."""
        graph = with_weights(self.start.graph, self._weights())
        tensors = self._tensors(graph)
        quants, constants = dict(self.start.spec.constants), dict(self.start.constants)
        for name in self.scales:
            op, source = _linear(graph.by_name[name]), graph.by_name[name].inputs[0]
            fitted = weight_scales_within(
                op,
                self._weight_scales(name, graph),
                input_scale=tensors[source].scale,
                output_scale=tensors[name].scale,
            )
            steps = np.float32(tensors[source].scale) * fitted
            weight, bias = f"{name}/weight", f"{name}/bias"
            constants[weight] = quantize_weight(op, fitted)
            constants[bias] = np.rint(op.bias.astype(np.float64) / steps).astype(constants[bias].dtype)
            quants[weight] = replace(quants[weight], scales=tuple(fitted.tolist()))
            quants[bias] = replace(quants[bias], scales=tuple(steps.tolist()))
        spec = replace(self.start.spec, tensors=tensors, constants=quants)
        return Quantized(graph=graph, spec=spec, constants=constants)

    def _weights(self) -> dict[str, tuple[Weight, Weight]]:
        """The trained float weights, with the zeros that were to stay."""
        found = {}
        for name, scale in self.scales.items():
            variables = self.configs[name].variables
            assert variables is not None  # noqa: S101 - the model is built
            weight, bias = (np.asarray(variable, np.float32) for variable in variables)
            found[name] = (np.asarray(scale.kept(weight)), bias)
        return found

    def _weight_scales(self, name: str, graph: Graph) -> NDArray[np.float64]:
        """A layer's scales, to the bit as the trained model has them, unless accumulators overflow."""
        least = least_accumulating(_linear(graph.by_name[name]))
        trained = np.asarray(self.configs[name].scales(), np.float64)
        return np.maximum(trained, least if trained.size > 1 else least.max())

    def _tensors(self, graph: Graph) -> dict[str, TensorQuant]:
        """Every tensor's quantization, with the scales enlarged where trained weights need it."""
        spec = self.start.spec
        integer = frozenset(node.name for node in graph.nodes[1:] if self.start.is_integer(node.name))
        made: dict[str, ScaleGroup] = {}
        for name, quant in spec.tensors.items():
            op = graph.by_name[name].op
            made.setdefault(
                self.groups[name],
                ScaleGroup(
                    low=0.0,
                    high=0.0,
                    scale=float(np.float32(self.steps[name].value())),
                    zero_point=quant.zero_point,
                    fixed=is_fixed(op) and name in integer,
                ),
            )
        group_of = {name: made[self.groups[name]] for name in spec.tensors}
        natural = {name: self._weight_scales(name, graph) for name in self.scales}
        enforce(graph, integer, group_of, natural)
        seen = {name: quant.observed or (0.0, 0.0) for name, quant in spec.tensors.items()}
        statistics = Statistics(
            ranges=seen, observed=seen, images=max(quant.images for quant in spec.tensors.values())
        )
        dtype = next(iter(spec.tensors.values())).dtype
        return tensor_quants(graph, spec.tensors, group_of, statistics, dtype, integer=integer)


def _linear(node: Node) -> Linear:
    assert isinstance(node.op, Conv2D | DepthwiseConv2D | Dense)  # noqa: S101 - only such nodes have scales
    return node.op


def _integer_linear(start: Quantized) -> list[str]:
    """Names of the nodes with integer weights."""
    return [
        node.name
        for node in start.graph.nodes
        if isinstance(node.op, Conv2D | DepthwiseConv2D | Dense) and start.is_integer(node.name)
    ]


def _steps(start: Quantized, groups: Mapping[str, str]) -> dict[str, Step]:
    """Every tensor's step; the image's and those that formats prescribe are not learned."""
    graph = start.graph
    held = {groups[node.name] for node in graph.nodes if isinstance(node.op, Input) or is_fixed(node.op)}
    made: dict[str, Step] = {}
    for name, quant in start.spec.tensors.items():
        first = groups[name]
        made.setdefault(first, Step(quant.scale, learned=first not in held))
    return {name: made[groups[name]] for name in start.spec.tensors}


def _output_quantizer(node: Node, start: Quantized, steps: Mapping[str, Step]) -> TensorQuantizer | None:
    quant = start.spec.tensors.get(node.name)
    integer = bool(node.inputs) and start.is_integer(node.name)
    if quant is None or (integer and isinstance(node.op, _MOVERS)):
        return None
    stored = integer and isinstance(node.op, AveragePool2D)
    return TensorQuantizer(quant, steps[node.name], stored=stored)


def _starting_weights(start: Quantized) -> dict[str, tuple[Weight, Weight]]:
    """Float weights that round to the integers that calibration chose, biases as those stand for."""
    found = {}
    for name in _integer_linear(start):
        op = _linear(start.graph.by_name[name])
        weight, bias = f"{name}/weight", f"{name}/bias"
        scales = _scales(start.spec.constants[weight])
        integers = start.constants[weight].astype(np.float32).reshape(-1, op.bias.size)
        low, high = np.maximum(integers - CELL, -QMAX), np.minimum(integers + CELL, QMAX)
        inside = np.clip(matrix(op), low * scales, high * scales).reshape(op.weight.shape)
        # What is zero was perhaps pruned, and stays zero.
        inside = np.where(op.weight == 0, 0, inside)
        found[name] = (
            inside.astype(np.float32),
            (start.constants[bias] * _scales(start.spec.constants[bias]).astype(np.float64)).astype(
                np.float32
            ),
        )
    return found


def _scales(quant: ConstantQuant) -> NDArray[np.float32]:
    return np.array(quant.scales, np.float32)


def _weight_scale(
    start: Quantized, node: Node, steps: Mapping[str, Step], *, keep_zeros: bool
) -> WeightScale:
    """The scales as shares of the starting weights' largest."""
    op, quant = _linear(node), start.spec.constants[f"{node.name}/weight"]
    per_channel = quant.axis is not None or op.bias.size == 1
    largest = (
        np.abs(matrix(op)).max(axis=0) if per_channel else np.abs(op.weight).max(keepdims=True).reshape(1)
    )
    natural = largest / np.float32(QMAX)
    shares = np.where(natural > 0, _scales(quant) / np.where(natural > 0, natural, 1), 1)
    return WeightScale(
        shares=shares.astype(np.float32),
        per_channel=per_channel,
        source=steps[node.inputs[0]],
        output=steps[node.name],
        mask=(op.weight != 0).astype(np.float32) if keep_zeros else None,
    )
