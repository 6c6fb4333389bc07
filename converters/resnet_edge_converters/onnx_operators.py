"""What each operator of the graph is in ONNX, one function an operator.

Tensors come and go as ``onnx_layout`` stores them: feature maps (batch, channels, height, width). What is
written here is the same in every precision: :class:`~resnet_edge_converters.onnx_graph.Expansion` knows in
which type a node computes, and what stands around it.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    Input,
    LeakyRelu,
    MaxPool2D,
    Multiply,
    Operator,
    Pad,
    Permute,
    PRelu,
    Reshape,
    Slice,
    Subtract,
    Upsample2D,
)
from resnet_edge_converters.onnx_graph import Expansion
from resnet_edge_converters.onnx_layout import reshapes_as_stored, same_order, stored
from resnet_edge_converters.onnx_opsets import HARD_SWISH, RESIZE_WITHOUT_REGION, SOFTMAX_OF_ONE_AXIS
from resnet_edge_converters.onnx_types import moves_integers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnet_edge.graph.geometry import Padding, Shape

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)


@singledispatch
def expand(op: Operator, to: Expansion, /) -> None:
    """Add to ``to`` the ONNX nodes that compute ``op``.

    Raises:
        ConversionFailedError: The operator has no form in ONNX.
    """
    raise ConversionFailedError(
        f"{type(op).__name__} cannot be written as ONNX", where=to.node.source or to.node.name
    )


@expand.register
def _input(_op: Input, to: Expansion, /) -> None:
    if to.nhwc_input:
        to.emit("Transpose", [to.node.name], aside="nchw", perm=TO_NCHW)


@expand.register
def _conv2d(op: Conv2D, to: Expansion, /) -> None:
    _convolve(to, op, op.groups)


@expand.register
def _depthwise_conv2d(op: DepthwiseConv2D, to: Expansion, /) -> None:
    _convolve(to, op, groups=op.weight.shape[2])


def _convolve(to: Expansion, op: Conv2D | DepthwiseConv2D, groups: int) -> None:
    result = to.emit(
        "Conv",
        [to.inputs[0], to.weight("weight"), *to.bias()],
        kernel_shape=op.kernel,
        strides=op.strides,
        dilations=op.dilation,
        pads=_pads(op.padding),
        group=groups,
    )
    _activate(to, result, op.activation)


@expand.register
def _dense(op: Dense, to: Expansion, /) -> None:
    # Output channels first: with int8 weights in the other order ONNX Runtime 1.31, unlike 1.18, would round
    # the features to 8 bits as well, also where all but the weights is meant to be float.
    result = to.emit("Gemm", [to.inputs[0], to.weight("weight"), *to.bias()], transB=1)
    _activate(to, result, op.activation)


def _pads(padding: Padding) -> list[int]:
    return [padding.top, padding.left, padding.bottom, padding.right]


def _activate(to: Expansion, tensor: str, activation: Activation) -> None:
    if to.is_integer:
        to.settle(tensor, clamped=activation is not Activation.NONE)
    elif activation is Activation.RELU:
        to.emit("Relu", [tensor], aside="relu")
    elif activation is Activation.RELU6:
        to.emit("Clip", [tensor, to.scalar("min", 0), to.scalar("max", 6)], aside="relu6")


@expand.register
def _batch_norm(op: BatchNorm, to: Expansion, /) -> None:
    names = [to.weight(role) for role in ("gamma", "beta", "mean", "variance")]
    tensor = to.inputs[0]
    if len(to.shape) == 2:  # ONNX normalizes the first dimension after the batch, here that is the last
        tensor = to.emit("Transpose", [tensor], aside="channel_first", dims=to.shape[::-1], perm=(0, 2, 1))
        tensor = to.emit("BatchNormalization", [tensor, *names], dims=to.shape[::-1], epsilon=op.epsilon)
        to.emit("Transpose", [tensor], aside="channel_last", perm=(0, 2, 1))
    else:
        to.emit("BatchNormalization", [tensor, *names], epsilon=op.epsilon)


@expand.register
def _elementwise(op: Elementwise, to: Expansion, /) -> None:
    x = to.inputs[0]
    if to.is_integer and moves_integers(op):
        to.clamp(x)
        return
    match op.function:
        case Function.RELU | Function.SIGMOID | Function.TANH:
            to.emit({"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}[op.function], [x])
        case Function.RELU6:
            to.emit("Clip", [x, to.scalar("min", 0), to.scalar("max", 6)])
        case Function.SOFTMAX:
            _softmax(to, x)
        case Function.SWISH:
            to.emit("Mul", [x, to.emit("Sigmoid", [x], aside="sigmoid")])
        case Function.HARD_SIGMOID:
            to.emit("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
        case Function.HARD_SWISH if to.opset >= HARD_SWISH:
            to.emit("HardSwish", [x])
        case Function.HARD_SWISH:
            to.emit("Mul", [x, to.emit("HardSigmoid", [x], aside="hard_sigmoid", alpha=1 / 6, beta=0.5)])


def _softmax(to: Expansion, x: str) -> None:
    if len(to.shape) != 3:
        to.emit("Softmax", [x], axis=len(to.shape))
    elif to.opset >= SOFTMAX_OF_ONE_AXIS:
        to.emit("Softmax", [x], axis=1)
    else:
        x = to.emit("Transpose", [x], aside="nhwc", dims=to.shape, perm=TO_NHWC)
        x = to.emit("Softmax", [x], dims=to.shape, axis=3)
        to.emit("Transpose", [x], aside="nchw", perm=TO_NCHW)


@expand.register
def _leaky_relu(op: LeakyRelu, to: Expansion, /) -> None:
    to.emit("LeakyRelu", to.inputs, alpha=op.alpha)


@expand.register
def _prelu(_op: PRelu, to: Expansion, /) -> None:
    to.emit("PRelu", [to.inputs[0], to.weight("alpha")])


@expand.register
def _add(op: Add, to: Expansion, /) -> None:
    _activate(to, to.emit("Add", to.inputs), op.activation)


@expand.register
def _multiply(_op: Multiply, to: Expansion, /) -> None:
    to.emit("Mul", to.inputs)


@expand.register
def _subtract(_op: Subtract, to: Expansion, /) -> None:
    to.emit("Sub", to.inputs)


@expand.register
def _concat(_op: Concat, to: Expansion, /) -> None:
    to.emit("Concat", to.inputs, axis=1 if len(to.shape) == 3 else len(to.shape))


@expand.register
def _max_pool(op: MaxPool2D, to: Expansion, /) -> None:
    if not isinstance(to.sources[0], Pad):
        to.emit("MaxPool", to.inputs, kernel_shape=op.size, strides=op.strides, pads=_pads(op.padding))
        return
    # A Pad that is still there may hold the largest value. ONNX Runtime (1.18 to 1.31) would move its zeros
    # into the pool's own padding, which never wins; it keeps away from pools that are padded by name.
    to.emit("MaxPool", [_bordered(op, to)], kernel_shape=op.size, strides=op.strides, auto_pad="VALID")


def _bordered(op: MaxPool2D, to: Expansion) -> str:
    """The pool's input with the pool's own padding around it."""
    if not op.padding:
        return to.inputs[0]
    height, width, channels = to.input_shapes[0]
    border = op.padding
    dims = (channels, height + border.top + border.bottom, width + border.left + border.right)
    pads = to.integers("pads", [0, 0, border.top, border.left, 0, 0, border.bottom, border.right])
    return to.emit("Pad", [to.inputs[0], pads, to.lowest()], aside="border", dims=dims)


@expand.register
def _average_pool(op: AveragePool2D, to: Expansion, /) -> None:
    to.emit("AveragePool", to.inputs, kernel_shape=op.size, strides=op.strides, pads=_pads(op.padding))


@expand.register
def _global_average_pool(op: GlobalAveragePool, to: Expansion, /) -> None:
    _flatten_unless(op.keepdims, to, to.emit("GlobalAveragePool", to.inputs, dims=(to.shape[-1], 1, 1)))


@expand.register
def _global_max_pool(op: GlobalMaxPool, to: Expansion, /) -> None:
    dims = (to.shape[-1], 1, 1)
    if to.is_integer:  # GlobalMaxPool is defined for real numbers only
        window = to.input_shapes[0][:2]
        result = to.emit("MaxPool", to.inputs, dims=dims, kernel_shape=window, auto_pad="VALID")
    else:
        result = to.emit("GlobalMaxPool", to.inputs, dims=dims)
    _flatten_unless(op.keepdims, to, result)


def _flatten_unless(keepdims: bool, to: Expansion, pooled: str) -> None:
    if not keepdims:
        pooled = to.settle(pooled)  # runtimes fuse QuantizeLinear with the operator right in front only
        to.emit("Flatten", [pooled], aside="flatten", dtype=to.held)


@expand.register
def _reshape(op: Reshape, to: Expansion, /) -> None:
    source, target = to.input_shapes[0], op.shape
    x = to.inputs[0]
    if to.keeps_channel_first or reshapes_as_stored(source, target):
        _as_shape(to, x, stored(target))
        return
    if not same_order(source):
        x = to.emit("Transpose", [x], aside="nhwc", dims=source, perm=TO_NHWC)
    if same_order(target):
        _as_shape(to, x, stored(target))
    else:
        to.emit("Transpose", [_as_shape(to, x, target)], aside="nchw", perm=TO_NCHW)


def _as_shape(to: Expansion, x: str, dims: Sequence[int]) -> str:
    if len(dims) == 1:
        return to.emit("Flatten", [x], dims=tuple(dims))
    # A zero keeps the batch, whether it is a number or open.
    return to.emit("Reshape", [x, to.integers("shape", [0, *dims])], dims=tuple(dims))


@expand.register
def _pad(op: Pad, to: Expansion, /) -> None:
    before = [0, op.channels[0], op.padding.top, op.padding.left]
    after = [0, op.channels[1], op.padding.bottom, op.padding.right]
    to.emit("Pad", [to.inputs[0], to.integers("pads", [*before, *after]), *to.zero()])


@expand.register
def _slice(op: Slice, to: Expansion, /) -> None:
    if _subsamples(op, to.input_shapes[0]):
        # A window of one pixel picks the same ones, and unlike Slice leaves ONNX Runtime's blocked layout be.
        to.emit("MaxPool", to.inputs, kernel_shape=(1, 1), strides=op.strides[:2])
        return
    lists = {"starts": op.begin, "ends": op.end, "axes": (2, 3, 1), "steps": op.strides}
    to.emit("Slice", [to.inputs[0], *(to.integers(role, values) for role, values in lists.items())])


def _subsamples(op: Slice, shape: Shape) -> bool:
    """Whether it takes every n-th pixel from the first to the last."""
    every = tuple(len(range(0, extent, step)) for extent, step in zip(shape, op.strides, strict=True))
    return op.begin == (0, 0, 0) and op.strides[2] == 1 and op.infer([shape]) == every


@expand.register
def _upsample(op: Upsample2D, to: Expansion, /) -> None:
    region = "" if to.opset >= RESIZE_WITHOUT_REGION else to.factors("region", [])
    scales = to.factors("scales", [1, 1, *op.size])
    inputs = [to.inputs[0], region, scales]
    if op.bilinear:
        to.emit("Resize", inputs, mode="linear", coordinate_transformation_mode="half_pixel")
    else:
        mode = "asymmetric"  # with floor: output pixel i is input pixel i // size
        to.emit("Resize", inputs, mode="nearest", coordinate_transformation_mode=mode, nearest_mode="floor")


@expand.register
def _permute(op: Permute, to: Expansion, /) -> None:
    to.emit("Transpose", to.inputs, perm=_stored_permutation(op.order))


def _stored_permutation(order: tuple[int, ...]) -> list[int]:
    """``order``, which counts the graph's dimensions, as ONNX's ``perm``, which counts the stored ones."""
    places = stored(tuple(range(len(order))))  # which of the graph's dimensions is stored at each place
    return [0, *(1 + places.index(order[axis]) for axis in places)]
