"""Translation of Keras layers: one function a layer, or a few layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras.src.utils.naming import to_snake_case

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.importing.translation import (
    concat,
    dense,
    flatten,
    leaky_relu,
    pair,
    per_channel,
    reduce_map,
    relu,
    reshape,
    softmax,
    window_padding,
)
from resnet_edge.graph.importing.walk import Call, Tensor, Translator, constant, weight
from resnet_edge.graph.operators import (
    Add,
    Affine,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool2D,
    Multiply,
    Operator,
    Pad,
    Permute,
    PRelu,
    Slice,
    Subtract,
    Upsample2D,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from resnet_edge.graph.geometry import Shape


_SIMPLE = {
    keras.activations.relu: Function.RELU,
    keras.activations.relu6: Function.RELU6,
    keras.activations.sigmoid: Function.SIGMOID,
    keras.activations.tanh: Function.TANH,
    keras.activations.silu: Function.SWISH,
    keras.activations.hard_sigmoid: Function.HARD_SIGMOID,
    keras.activations.hard_silu: Function.HARD_SWISH,
}
"""Activations that one node expresses; Keras cannot call all of them on symbolic tensors."""


def _activate(call: Call, tensor: Tensor, *, suffix: bool) -> Tensor:
    """The layer's ``activation``: a function, a layer or any callable made of ``keras.ops``."""
    activation = call.operation.activation
    if activation is None or activation is keras.activations.linear:
        return tensor
    name = str(getattr(activation, "__name__", None) or getattr(activation, "name", "activation"))
    if activation in _SIMPLE:
        return call.emit(Elementwise(function=_SIMPLE[activation]), tensor, suffix=name if suffix else "")
    path = f"{call.path}/{name}" if suffix else call.path
    return call.builder.trace(activation, (tensor,), {}, path=path, name=lambda _: "")[0]


def _activated(call: Call, tensor: Tensor) -> Tensor:
    """The layer's own ``activation=`` behind its result."""
    return _activate(call, tensor, suffix=True)


def _conv(call: Call) -> Tensor:
    layer, tensor = call.operation, call.tensor
    kernel = weight(layer.kernel)
    strides, dilation = pair(layer.strides), pair(layer.dilation_rate)
    op = Conv2D(
        weight=kernel,
        bias=_bias(layer, kernel.shape[3]),
        strides=strides,
        padding=window_padding(call, layer.padding, tensor.shape, kernel.shape[:2], strides, dilation),
        dilation=dilation,
        groups=layer.groups,
    )
    return _activated(call, call.emit(op, tensor))


def _depthwise(call: Call) -> Tensor:
    layer, tensor = call.operation, call.tensor
    return _activated(call, call.emit(_depthwise_op(call, layer.kernel, use_bias=layer.use_bias), tensor))


def _depthwise_op(call: Call, kernel_variable: Any, *, use_bias: bool) -> DepthwiseConv2D:
    layer, kernel = call.operation, weight(kernel_variable)
    strides, dilation = pair(layer.strides), pair(layer.dilation_rate)
    channels = kernel.shape[2] * kernel.shape[3]
    return DepthwiseConv2D(
        weight=kernel,
        bias=_bias(layer, channels) if use_bias else np.zeros(channels, np.float32),
        strides=strides,
        padding=window_padding(call, layer.padding, call.tensor.shape, kernel.shape[:2], strides, dilation),
        dilation=dilation,
    )


def _separable(call: Call) -> Tensor:
    layer = call.operation
    depthwise = call.emit(
        _depthwise_op(call, layer.depthwise_kernel, use_bias=False), call.tensor, suffix="depthwise"
    )
    kernel = weight(layer.pointwise_kernel)
    pointwise = Conv2D(weight=kernel, bias=_bias(layer, kernel.shape[3]))
    return _activated(call, call.emit(pointwise, depthwise, suffix="pointwise"))


def _bias(layer: Any, channels: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    bias = layer.bias if layer.use_bias else None
    return np.zeros(channels, np.float32) if bias is None else weight(bias)


def _dense(call: Call) -> Tensor:
    layer = call.operation
    kernel = weight(layer.kernel)
    return _activated(call, dense(call, call.tensor, kernel, _bias(layer, kernel.shape[1])))


def _batchnorm(call: Call) -> Tensor:
    layer, tensor = call.operation, call.args[0]
    rank = len(tensor.shape) + 1
    if layer.axis not in (-1, rank - 1):
        raise call.rejected(f"axis {layer.axis}", allowed="the last axis (channels_last)")
    mean = weight(layer.moving_mean)
    op = BatchNorm(
        gamma=weight(layer.gamma) if layer.scale else np.ones_like(mean),
        beta=weight(layer.beta) if layer.center else np.zeros_like(mean),
        mean=mean,
        variance=weight(layer.moving_variance),
        epsilon=float(layer.epsilon),
    )
    return call.emit(op, tensor)


def _rescaling(call: Call) -> Tensor:
    layer, tensor = call.operation, call.tensor
    scale, offset = per_channel(call, layer.scale, tensor), per_channel(call, layer.offset, tensor)
    return call.emit(Affine(scale=scale, offset=offset), tensor)


def _normalization(call: Call) -> Tensor:
    layer, tensor = call.operation, call.tensor
    mean = constant(layer.mean)
    # Keras clips the deviation from below by its epsilon.
    deviation = np.maximum(np.sqrt(constant(layer.variance)), keras.config.epsilon())
    scale, offset = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
    return call.emit(
        Affine(scale=per_channel(call, scale, tensor), offset=per_channel(call, offset, tensor)), tensor
    )


def _activation(call: Call) -> Tensor:
    return _activate(call, call.tensor, suffix=False)


def _prelu(call: Call) -> Tensor:
    alpha = constant(call.operation.alpha)
    return call.emit(PRelu(alpha=per_channel(call, alpha, call.tensor)), call.tensor)


def _merge(make: Callable[[], Operator]) -> Translator:
    """A layer that merges two or more tensors pairwise, from left to right."""

    def translate(call: Call) -> Tensor:
        first, *others = call.tensors
        for tensor in others:
            first = call.emit(make(), first, tensor)
        return first

    return translate


def _pool(kind: type[MaxPool2D | AveragePool2D]) -> Translator:
    def translate(call: Call) -> Tensor:
        layer, tensor = call.operation, call.tensor
        size, strides = pair(layer.pool_size), pair(layer.strides)
        padding = window_padding(call, layer.padding, tensor.shape, size, strides)
        return call.emit(kind(size=size, strides=strides, padding=padding), tensor)

    return translate


def _global_pool(kind: type[GlobalAveragePool | GlobalMaxPool]) -> Translator:
    def translate(call: Call) -> Tensor:
        return reduce_map(call, kind, axes=(1, 2), keepdims=call.operation.keepdims)

    return translate


def _reshape(call: Call) -> Tensor:
    return reshape(call, call.tensor, call.operation.target_shape)


def _zero_padding(call: Call) -> Tensor:
    (top, bottom), (left, right) = call.operation.padding
    return call.emit(Pad(padding=Padding(top=top, bottom=bottom, left=left, right=right)), call.tensor)


def _cropping(call: Call) -> Tensor:
    (top, bottom), (left, right) = call.operation.cropping
    height, width, channels = call.tensor.shape
    end = (height - bottom, width - right, channels)
    return call.emit(Slice(begin=(top, left, 0), end=end), call.tensor)


def _upsampling(call: Call) -> Tensor:
    layer = call.operation
    if layer.interpolation not in ("nearest", "bilinear"):
        raise call.rejected(f"interpolation {layer.interpolation!r}", allowed="nearest, bilinear")
    op = Upsample2D(size=pair(layer.size), bilinear=layer.interpolation == "bilinear")
    return call.emit(op, call.tensor)


def _permute(call: Call) -> Tensor:
    order = tuple(axis - 1 for axis in call.operation.dims)
    return call.emit(Permute(order=order), call.tensor)


def _identity(call: Call) -> Tensor:
    """Layers that do nothing at inference: dropout, noise, augmentation, regularizers."""
    return call.tensor


def _resizing(call: Call) -> Tensor:
    """Resizing and cropping to the size that the image already has."""
    layer, shape = call.operation, call.tensor.shape
    wanted: Shape = (layer.height, layer.width)
    if shape[:2] != wanted:
        raise call.rejected(
            f"resizes {shape[0]}x{shape[1]} to {wanted[0]}x{wanted[1]} inside the model",
            allowed="an image that already has this size",
            next_step=f"export with --input-shape {wanted[0]},{wanted[1]},{shape[2]}: resizing belongs to "
            "the preprocessing on the device",
        )
    return call.tensor


def _lambda(call: Call) -> Tensor:
    """The user's function; that code in a file may run at all was settled when the file was opened."""
    layer = call.operation
    return call.builder.trace(
        layer.call,
        call.args,
        call.kwargs,
        path=call.path,
        name=lambda made: to_snake_case(type(made).__name__),
    )[0]


LAYERS: Mapping[str, Translator] = {
    "Activation": _activation,
    "Add": _merge(Add),
    "AveragePooling2D": _pool(AveragePool2D),
    "BatchNormalization": _batchnorm,
    "Concatenate": concat,
    "Conv2D": _conv,
    "Cropping2D": _cropping,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Flatten": flatten,
    "GlobalAveragePooling2D": _global_pool(GlobalAveragePool),
    "GlobalMaxPooling2D": _global_pool(GlobalMaxPool),
    "Lambda": _lambda,
    "LeakyReLU": leaky_relu,
    "MaxPooling2D": _pool(MaxPool2D),
    "Multiply": _merge(Multiply),
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Permute": _permute,
    "ReLU": relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Softmax": softmax,
    "Subtract": _merge(Subtract),
    "UpSampling2D": _upsampling,
    "ZeroPadding2D": _zero_padding,
    **dict.fromkeys(("CenterCrop", "RandomCrop", "Resizing"), _resizing),
    **dict.fromkeys(
        (
            "ActivityRegularization",
            "AlphaDropout",
            "AutoContrast",
            "Dropout",
            "GaussianDropout",
            "GaussianNoise",
            "Identity",
            "RandomBrightness",
            "RandomColorDegeneration",
            "RandomColorJitter",
            "RandomContrast",
            "RandomErasing",
            "RandomFlip",
            "RandomGaussianBlur",
            "RandomGrayscale",
            "RandomHue",
            "RandomInvert",
            "RandomPerspective",
            "RandomPosterization",
            "RandomRotation",
            "RandomSaturation",
            "RandomSharpness",
            "RandomShear",
            "RandomTranslation",
            "RandomZoom",
            "SpatialDropout2D",
        ),
        _identity,
    ),
}
"""Translators by class name of ``keras.layers``."""
