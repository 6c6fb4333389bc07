"""The operators without weights in TensorFlow, and the one layer that runs any of them."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from resnet_edge.finetuning.frameworks import tf, tf_keras
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Concat,
    Elementwise,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool2D,
    Multiply,
    Operator,
    Pad,
    Reshape,
    Slice,
)

if TYPE_CHECKING:
    from resnet_edge.graph.geometry import Padding

_FUNCTIONS = {
    Function.RELU: tf.nn.relu,
    Function.RELU6: tf.nn.relu6,
    Function.SIGMOID: tf.math.sigmoid,
    Function.SOFTMAX: tf.nn.softmax,
}


class Operation(tf_keras.layers.Layer):  # type: ignore[misc] # tf_keras comes without types
    """A weightless operator of the graph as a layer.

    Args:
        op: The operator.
        **settings: Of any layer.
    """

    def __init__(self, op: Operator, **settings: Any) -> None:
        super().__init__(**settings)
        self._op = op

    def call(self, inputs: Any) -> Any:
        """The operator's output for its one input, or for a list of them."""
        tensors = inputs if isinstance(inputs, list | tuple) else [inputs]
        return _run(self._op, *tensors)


def runs(op: Operator) -> bool:
    """Whether an operator without weights can be fine-tuned through."""
    if isinstance(op, Elementwise):
        return op.function in _FUNCTIONS
    return _run.dispatch(type(op)) is not _run.dispatch(object)


def activated(x: Any, activation: Activation) -> Any:
    """A tensor behind a fused activation."""
    return x if activation is Activation.NONE else _FUNCTIONS[Function(activation.value)](x)


@singledispatch
def _run(op: object, *_inputs: Any) -> Any:
    raise NotImplementedError(f"no TensorFlow form of {type(op).__name__}")


@_run.register
def _elementwise(op: Elementwise, x: Any) -> Any:
    return _FUNCTIONS[op.function](x)


@_run.register
def _add(op: Add, a: Any, b: Any) -> Any:
    return activated(a + b, op.activation)


@_run.register
def _multiply(_op: Multiply, a: Any, b: Any) -> Any:
    return a * b


@_run.register
def _concat(_op: Concat, *inputs: Any) -> Any:
    return tf.concat(inputs, axis=-1)


@_run.register
def _max_pool(op: MaxPool2D, x: Any) -> Any:
    x = _padded(x, op.padding, x.dtype.min)
    return tf.nn.max_pool2d(x, op.size, op.strides, "VALID")


@_run.register
def _average_pool(op: AveragePool2D, x: Any) -> Any:
    ones = tf.ones_like(x[:1, :, :, :1])
    # Means of values and of ones: their ratio leaves padded cells out of the count.
    means, shares = (
        tf.nn.avg_pool2d(_padded(tensor, op.padding), op.size, op.strides, "VALID") for tensor in (x, ones)
    )
    return means / shares


@_run.register
def _global_average_pool(op: GlobalAveragePool, x: Any) -> Any:
    return tf.reduce_mean(x, axis=(1, 2), keepdims=op.keepdims)


@_run.register
def _global_max_pool(op: GlobalMaxPool, x: Any) -> Any:
    return tf.reduce_max(x, axis=(1, 2), keepdims=op.keepdims)


@_run.register
def _reshape(op: Reshape, x: Any) -> Any:
    return tf.reshape(x, (-1, *op.shape))


@_run.register
def _pad(op: Pad, x: Any) -> Any:
    return tf.pad(_padded(x, op.padding), ((0, 0), (0, 0), (0, 0), op.channels))


@_run.register
def _slice(op: Slice, x: Any) -> Any:
    cuts = (slice(*bounds) for bounds in zip(op.begin, op.end, op.strides, strict=True))
    return x[:, *cuts]


def _padded(x: Any, padding: Padding, value: float = 0.0) -> Any:
    if not padding:
        return x
    around = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), (0, 0))
    return tf.pad(x, around, constant_values=value)
