"""Sliding windows in TFLite: convolutions and pools.

TFLite knows two paddings by name, SAME and VALID. Where a node's padding is neither, a PAD goes in front of a
VALID window; XNNPACK merges it into a convolution, at no cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from resnet_edge.graph.geometry import Padding, ShapeError, window_count
from resnet_edge.graph.operators import AveragePool2D, Conv2D, DepthwiseConv2D, MaxPool2D
from resnet_edge_converters.tflite_emitter import FUSED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph import Node
    from resnet_edge.graph.geometry import Shape
    from resnet_edge_converters.tflite_emitter import Emitter
    from resnet_edge_converters.tflite_flatbuffer import TensorId


@dataclass(frozen=True, kw_only=True)
class Window:
    """A node's window and how it slides."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    padding: Padding

    @classmethod
    def of(cls, op: Conv2D | DepthwiseConv2D | MaxPool2D | AveragePool2D) -> Window:
        """The window of an operator."""
        if isinstance(op, Conv2D | DepthwiseConv2D):
            return cls(kernel=op.kernel, strides=op.strides, dilation=op.dilation, padding=op.padding)
        return cls(kernel=op.size, strides=op.strides, padding=op.padding)

    def named_padding(self, size: tuple[int, int]) -> int | None:
        """SAME or VALID, if either gives the same windows on a map of ``size``; else None."""
        wanted = self._places(size, self.padding)
        same = Padding.same(size, self.kernel, self.strides, self.dilation)
        for name, candidate in ((schema.Padding.VALID, Padding()), (schema.Padding.SAME, same)):
            if self._places(size, candidate) == wanted:
                return int(name)
        return None

    def _places(self, size: tuple[int, int], padding: Padding) -> tuple[int, ...] | None:
        """Where the first window lies and how many there are; padding behind the last never counts."""
        try:
            count = window_count(size, self.kernel, self.strides, self.dilation, padding)
        except ShapeError:
            return None
        return padding.top, padding.left, *count


def emit_conv(op: Conv2D, node: Node, to: Emitter) -> None:
    """CONV_2D; the runtime tells the number of groups from the filter's depth."""
    source, options = _windowed(schema.Conv2DOptionsT(), op, node, to)
    options.fusedActivationFunction = FUSED[op.activation]
    inputs = [source, to.constant(node, "weight"), to.constant(node, "bias")]
    version = 6 if op.groups > 1 else 1
    to.model.operator("CONV_2D", inputs, to.result(node), options, version=version)


def emit_depthwise(op: DepthwiseConv2D, node: Node, to: Emitter) -> None:
    """DEPTHWISE_CONV_2D."""
    source, options = _windowed(schema.DepthwiseConv2DOptionsT(), op, node, to)
    options.fusedActivationFunction = FUSED[op.activation]
    options.depthMultiplier = op.weight.shape[3]
    inputs = [source, to.constant(node, "weight"), to.constant(node, "bias")]
    version = 1 if op.dilation == (1, 1) else 2
    to.model.operator("DEPTHWISE_CONV_2D", inputs, to.result(node), options, version=version)


def emit_max_pool(op: MaxPool2D, node: Node, to: Emitter) -> None:
    """MAX_POOL_2D, padded so that a padded cell never wins."""
    # A zero never wins where nothing is negative, as after a ReLU; and unlike PADV2, XNNPACK runs PAD.
    by_zero = to.never_below_zero(node.inputs[0])
    source, options = _windowed(schema.Pool2DOptionsT(), op, node, to, zeros=by_zero)
    to.model.operator("MAX_POOL_2D", [source], to.result(node), options)


def emit_average_pool(op: AveragePool2D, node: Node, to: Emitter) -> None:
    """AVERAGE_POOL_2D; behind a PAD, whose zeros it counts, a factor for every window takes them out.

    In integers that rounds twice: windows that reach into the padding are off by up to half a factor more.
    """
    source, options = _windowed(schema.Pool2DOptionsT(), op, node, to)
    if source == to.source(node):
        to.model.operator("AVERAGE_POOL_2D", [source], to.result(node), options)
        return
    counted = to.between(node, "counted", to.result_shape(node))
    to.model.operator("AVERAGE_POOL_2D", [source], counted, options)
    multiples, unit = _average_correction(op, to.source_shape(node))
    factor = to.exact(node, "correction", multiples, unit)
    # MUL's version 3 is the first with factors above 1.
    to.model.operator("MUL", [counted, factor], to.result(node), schema.MulOptionsT(), version=3)


def paddings(padding: Padding, channels: tuple[int, int] = (0, 0)) -> list[tuple[int, int]]:
    """PAD's second input: cells before and after along batch, height, width and channels."""
    return [(0, 0), (padding.top, padding.bottom), (padding.left, padding.right), channels]


def _windowed(
    options: Any,
    op: Conv2D | DepthwiseConv2D | MaxPool2D | AveragePool2D,
    node: Node,
    to: Emitter,
    *,
    zeros: bool = True,
) -> tuple[TensorId, Any]:
    """What the window slides over, and ``options`` filled in; pads, if it must, with zeros or the lowest."""
    window = Window.of(op)
    height, width, _ = to.source_shape(node)
    source, name = to.source(node), window.named_padding((height, width))
    if name is None:
        source, name = _pad(node, to, window.padding, zeros=zeros), schema.Padding.VALID
    options.padding = name
    options.strideH, options.strideW = window.strides
    if isinstance(options, schema.Pool2DOptionsT):
        options.filterHeight, options.filterWidth = window.kernel
    else:
        options.dilationHFactor, options.dilationWFactor = window.dilation
    return source, options


def _pad(node: Node, to: Emitter, padding: Padding, *, zeros: bool) -> TensorId:
    height, width, channels = to.source_shape(node)
    shape = (height + padding.top + padding.bottom, width + padding.left + padding.right, channels)
    padded = to.between(node, "padded", shape)
    inputs = [to.source(node), to.indices(node, "paddings", paddings(padding))]
    if zeros:
        to.model.operator("PAD", inputs, padded, schema.PadOptionsT())
    else:
        to.model.operator("PADV2", [*inputs, to.lowest(node)], padded, schema.PadV2OptionsT())
    return padded


def _average_correction(op: AveragePool2D, shape: Shape) -> tuple[NDArray[np.int64], float]:
    """Cells of each window over those that are not padding, (1, height, width, 1), as multiples of a unit."""
    cells = []
    sides = ((op.padding.top, op.padding.bottom), (op.padding.left, op.padding.right))
    for extent, size, stride, (before, after) in zip(shape[:2], op.size, op.strides, sides, strict=True):
        starts = np.arange(-before, extent + after - size + 1, stride)
        cells.append(np.minimum(starts + size, extent) - np.maximum(starts, 0))
    counted = np.multiply.outer(*cells)[None, :, :, None]
    denominator = int(np.lcm.reduce(counted.ravel()))
    multiples = math.prod(op.size) * denominator // counted
    common = math.gcd(denominator, int(np.gcd.reduce(multiples.ravel())))
    return multiples // common, common / denominator
