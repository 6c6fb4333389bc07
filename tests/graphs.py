"""Small seeded graphs: what a converter, a pass or a quantizer can meet.

``OPERATOR_GRAPHS`` holds one graph for each operator and combination of attributes, in the form that
converters see (no ``Affine``); ``residual_graphs`` draws whole residual networks in the form that the import
leaves (nothing folded, nothing fused).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Activation,
    Add,
    AveragePool2D,
    Concat,
    Function,
    GlobalAveragePool,
    GlobalMaxPool,
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
from tests.graph_builder import CLASSES, GraphBuilder
from tests.graph_builder import images as images
from tests.residual_graphs import residual_graphs as residual_graphs

if TYPE_CHECKING:
    from resnet_edge.graph import Graph
    from resnet_edge.graph.geometry import Shape

RELU, RELU6 = Activation.RELU, Activation.RELU6


def _convolutions() -> dict[str, Graph]:
    def conv(channels: int = 4, shape: Shape = (8, 8, 3), **attributes: object) -> Graph:
        builder = GraphBuilder(shape)
        return builder.classified(builder.conv(builder.image, channels, **attributes))  # type: ignore[arg-type]

    asymmetric = Padding(top=0, bottom=1, left=2, right=1)
    return {
        "conv_1x1": conv(kernel=(1, 1)),
        "conv_1x1_stride2": conv(kernel=(1, 1), strides=(2, 2)),
        "conv_3x3_same": conv(),
        "conv_3x3_valid": conv(padding=Padding()),
        "conv_3x5_same": conv(kernel=(3, 5)),
        "conv_even_kernel_same": conv(kernel=(2, 4)),
        "conv_stride2_same_even": conv(strides=(2, 2)),
        "conv_stride2_same_odd": conv(shape=(9, 7, 3), strides=(2, 2)),
        "conv_stride2_symmetric": conv(strides=(2, 2), padding=Padding(top=1, bottom=1, left=1, right=1)),
        "conv_unequal_strides": conv(strides=(2, 1)),
        "conv_asymmetric_padding": conv(padding=asymmetric),
        "conv_asymmetric_padding_stride3": conv(strides=(3, 3), padding=asymmetric),
        "conv_stride_leaves_rest": conv(shape=(8, 9, 3), strides=(2, 2), padding=Padding()),
        "conv_dilation2_same": conv(dilation=(2, 2)),
        "conv_unequal_dilation_valid": conv(dilation=(1, 3), padding=Padding()),
        "conv_groups2": conv(shape=(8, 8, 4), channels=6, groups=2),
        "conv_groups_as_channels": conv(shape=(8, 8, 4), channels=4, groups=4),
        "conv_groups_as_channels_multiplier2": conv(shape=(8, 8, 4), channels=8, groups=4, strides=(2, 2)),
        "conv_groups_dilated_asymmetric": conv(
            shape=(8, 8, 4), channels=4, groups=2, dilation=(2, 2), padding=asymmetric
        ),
        "conv_without_bias": conv(bias=False),
        "conv_relu": conv(activation=RELU),
        "conv_relu6": conv(activation=RELU6),
        "conv_1_input_channel": conv(shape=(8, 8, 1)),
        "conv_4_input_channels": conv(shape=(8, 8, 4)),
        "conv_1_output_channel": conv(channels=1),
        "conv_33x57": conv(shape=(33, 57, 3), strides=(2, 2)),
        "conv_7x7_stem_33x57": conv(
            shape=(33, 57, 3),
            kernel=(7, 7),
            strides=(2, 2),
            padding=Padding(top=3, bottom=3, left=3, right=3),
            activation=RELU,
        ),
        "conv_covers_map": conv(kernel=(8, 8), padding=Padding()),
    }


def _depthwise() -> dict[str, Graph]:
    def depthwise(shape: Shape = (8, 8, 3), **attributes: object) -> Graph:
        builder = GraphBuilder(shape)
        return builder.classified(builder.depthwise(builder.image, **attributes))  # type: ignore[arg-type]

    return {
        "depthwise_3x3_same": depthwise(),
        "depthwise_3x3_valid": depthwise(padding=Padding()),
        "depthwise_1x1_affine": depthwise(kernel=(1, 1)),
        "depthwise_1x1_affine_relu": depthwise(kernel=(1, 1), activation=RELU),
        "depthwise_1_channel": depthwise(shape=(8, 8, 1)),
        "depthwise_1_channel_multiplier4": depthwise(shape=(8, 8, 1), multiplier=4),
        "depthwise_multiplier2": depthwise(multiplier=2),
        "depthwise_multiplier2_stride2_odd": depthwise(shape=(9, 7, 3), multiplier=2, strides=(2, 2)),
        "depthwise_5x3_stride2": depthwise(kernel=(5, 3), strides=(2, 2)),
        "depthwise_dilation2": depthwise(dilation=(2, 2)),
        "depthwise_asymmetric_padding": depthwise(padding=Padding(top=2, left=1)),
        "depthwise_relu6": depthwise(activation=RELU6),
    }


def _on_map(op: Operator, shape: Shape = (8, 8, 3), *, copies: int = 1) -> Graph:
    """The operator behind a convolution: every input of it is the same tensor."""
    builder = GraphBuilder(shape)
    x = builder.conv(builder.image, shape[-1], (1, 1))
    return builder.classified(builder.add(op, *[x] * copies))


def _on_vector(op: Operator, features: int = 6) -> Graph:
    builder = GraphBuilder((8, 8, 3))
    x = builder.dense(builder.add(GlobalAveragePool(), builder.image), features)
    return builder.classified(builder.add(op, x))


def _pools() -> dict[str, Graph]:
    one = Padding(top=1, bottom=1, left=1, right=1)
    same_odd = Padding.same((9, 7), (3, 3), (2, 2))
    same_even = Padding.same((8, 8), (3, 3), (2, 2))
    average_at_end = GraphBuilder((8, 8, 3))
    pooled = average_at_end.add(GlobalAveragePool(), average_at_end.image)
    return {
        "max_pool_2x2": _on_map(MaxPool2D(size=(2, 2), strides=(2, 2))),
        "max_pool_overlapping": _on_map(MaxPool2D(size=(3, 3), strides=(1, 1))),
        "max_pool_symmetric": _on_map(MaxPool2D(size=(3, 3), strides=(2, 2), padding=one)),
        "max_pool_same_odd": _on_map(MaxPool2D(size=(3, 3), strides=(2, 2), padding=same_odd), (9, 7, 3)),
        "max_pool_same_even": _on_map(MaxPool2D(size=(3, 3), strides=(2, 2), padding=same_even)),
        "max_pool_asymmetric": _on_map(
            MaxPool2D(size=(3, 2), strides=(2, 1), padding=Padding(top=1, right=1))
        ),
        "max_pool_stride3_leaves_rest": _on_map(MaxPool2D(size=(2, 2), strides=(3, 3))),
        "average_pool_2x2": _on_map(AveragePool2D(size=(2, 2), strides=(2, 2))),
        "average_pool_same_odd": _on_map(
            AveragePool2D(size=(3, 3), strides=(2, 2), padding=same_odd), (9, 7, 3)
        ),
        "average_pool_same_even": _on_map(AveragePool2D(size=(3, 3), strides=(2, 2), padding=same_even)),
        "average_pool_asymmetric": _on_map(
            AveragePool2D(size=(3, 2), strides=(1, 1), padding=Padding(top=2, left=1))
        ),
        "global_average_pool": _on_map(GlobalAveragePool()),
        "global_average_pool_keepdims": _on_map(GlobalAveragePool(keepdims=True)),
        "global_average_pool_33x57": _on_map(GlobalAveragePool(), (33, 57, 4)),
        "global_max_pool": _on_map(GlobalMaxPool()),
        "global_max_pool_keepdims": _on_map(GlobalMaxPool(keepdims=True)),
        "output_of_global_average_pool": average_at_end.graph(pooled),
    }


def _functions() -> dict[str, Graph]:
    def head(function: Function) -> Graph:
        builder = GraphBuilder((8, 8, 3))
        logits = builder.dense(builder.add(GlobalAveragePool(), builder.image))
        return builder.graph(builder.function(logits, function))

    dense = GraphBuilder((8, 8, 3))
    hidden = dense.dense(dense.add(GlobalAveragePool(), dense.image), 7, activation=RELU)
    graphs = {f"{function}_of_map": _on_function(function) for function in Function}
    return graphs | {
        "sigmoid_output": head(Function.SIGMOID),
        "softmax_output": head(Function.SOFTMAX),
        "relu_output": head(Function.RELU),
        "tanh_of_vector": _on_function_of_vector(Function.TANH),
        "leaky_relu": _on_map(LeakyRelu(alpha=0.3)),
        "leaky_relu_of_vector": _on_vector(LeakyRelu(alpha=0.1)),
        "prelu": _on_map(PRelu(alpha=GraphBuilder((1,)).normal(3))),
        "prelu_of_vector": _on_vector(PRelu(alpha=GraphBuilder((1,)).normal(6))),
        "dense_relu_dense_relu6": dense.graph(dense.dense(hidden, activation=RELU6)),
    }


def _on_function(function: Function) -> Graph:
    builder = GraphBuilder((6, 5, 4))
    # Doubled, so that the clipped ends of relu6 and hard sigmoid are reached.
    x = builder.conv(builder.image, 4, (1, 1))
    return builder.classified(builder.function(builder.add(Add(), x, x), function))


def _on_function_of_vector(function: Function) -> Graph:
    builder = GraphBuilder((8, 8, 3))
    x = builder.dense(builder.add(GlobalAveragePool(), builder.image), 6)
    return builder.classified(builder.function(x, function))


def _joins() -> dict[str, Graph]:
    def join(op: Operator, first: Shape = (6, 5, 4), second: Shape = (6, 5, 4)) -> Graph:
        """The operator on a map and on a part of another one that has the second shape."""
        builder = GraphBuilder((6, 5, 4))
        maps = [
            builder.add(
                Slice(begin=(0, 0, 0), end=(shape[0], shape[1], shape[2])), builder.conv(builder.image, 4)
            )
            for shape in (first, second)
        ]
        return builder.classified(builder.add(op, *maps))

    vectors = GraphBuilder((6, 5, 4))
    pooled = vectors.add(GlobalAveragePool(), vectors.image)
    pair = vectors.add(Concat(), vectors.dense(pooled, 3), vectors.dense(pooled, 4))
    product = vectors.add(Multiply(), pair, vectors.dense(pooled, 7))
    total = vectors.add(Add(activation=RELU), product, vectors.dense(pooled, 1))

    three = GraphBuilder((6, 5, 3))
    parts = [three.conv(three.image, channels) for channels in (1, 4, 2)]
    return {
        "add": join(Add()),
        "add_relu": join(Add(activation=RELU)),
        "add_relu6": join(Add(activation=RELU6)),
        "add_broadcast_channels": join(Add(), second=(1, 1, 4)),
        "add_broadcast_first": join(Add(activation=RELU), first=(1, 1, 4)),
        "add_itself": _on_map(Add(), copies=2),
        "multiply": join(Multiply()),
        "multiply_broadcast_channels": join(Multiply(), second=(1, 1, 4)),
        "multiply_broadcast_map": join(Multiply(), second=(6, 5, 1)),
        "multiply_broadcast_scalar": join(Multiply(), second=(1, 1, 1)),
        "multiply_broadcast_both": join(Multiply(), first=(6, 1, 4), second=(1, 5, 1)),
        "subtract": join(Subtract()),
        "subtract_broadcast_first": join(Subtract(), first=(1, 1, 4)),
        "concat": join(Concat()),
        "concat_three": three.classified(three.add(Concat(), *parts)),
        "concat_itself": _on_map(Concat(), copies=2),
        "joins_of_vectors": vectors.classified(total),
    }


def _shapes() -> dict[str, Graph]:
    flat = GraphBuilder((4, 4, 3))
    pooled = flat.add(AveragePool2D(size=(2, 2), strides=(2, 2)), flat.conv(flat.image, 4))
    flattened = flat.add(Reshape(shape=(16,)), pooled)

    output = GraphBuilder((4, 4, 3))
    kept = output.add(GlobalAveragePool(keepdims=True), output.conv(output.image, CLASSES))

    tokens = GraphBuilder((4, 6, 3))
    rows = tokens.add(Reshape(shape=(24, 3)), tokens.image)
    swapped = tokens.add(Permute(order=(1, 0)), rows)
    columns = tokens.add(Reshape(shape=(72,)), swapped)

    unflat = GraphBuilder((4, 4, 3))
    vector = unflat.dense(unflat.add(GlobalAveragePool(), unflat.image), 24)
    return {
        "flatten_2x2_dense": flat.graph(flat.dense(flattened)),
        "flatten_image_dense": _on_map(Reshape(shape=(192,))),
        "reshape_output": output.graph(output.add(Reshape(shape=(CLASSES,)), kept)),
        "reshape_map_to_map": _on_map(Reshape(shape=(4, 4, 12))),
        "reshape_vector_to_map": unflat.classified(unflat.add(Reshape(shape=(3, 2, 4)), vector)),
        "reshape_to_tokens_permute": tokens.graph(tokens.dense(columns)),
        "permute_height_width": _on_map(Permute(order=(1, 0, 2)), (6, 5, 3)),
        "permute_to_nchw": _on_map(Permute(order=(2, 0, 1)), (6, 5, 3)),
        "permute_rotate": _on_map(Permute(order=(1, 2, 0)), (6, 5, 3)),
        "pad": _on_map(Pad(padding=Padding(top=1, bottom=2, left=3, right=0))),
        "pad_channels": _on_map(Pad(channels=(1, 2))),
        "pad_map_and_channels": _on_map(Pad(padding=Padding(bottom=1, right=1), channels=(0, 2))),
        "slice_crop": _on_map(Slice(begin=(1, 2, 0), end=(7, 5, 3))),
        "slice_strided": _on_map(Slice(begin=(0, 0, 0), end=(9, 7, 3), strides=(2, 2, 1)), (9, 7, 3)),
        "slice_strided_offset": _on_map(Slice(begin=(1, 0, 0), end=(8, 8, 3), strides=(2, 3, 1))),
        "slice_channels": _on_map(Slice(begin=(0, 0, 1), end=(8, 8, 4), strides=(1, 1, 2)), (8, 8, 4)),
        "upsample_nearest": _on_map(Upsample2D(size=(2, 3)), (4, 5, 3)),
        "upsample_bilinear": _on_map(Upsample2D(size=(2, 2), bilinear=True), (4, 5, 3)),
        "upsample_bilinear_unequal": _on_map(Upsample2D(size=(3, 1), bilinear=True), (4, 5, 3)),
    }


def _networks() -> dict[str, Graph]:
    norm = GraphBuilder((6, 5, 3))
    normed = norm.function(norm.batch_norm(norm.conv(norm.image, 4)))

    tail = GraphBuilder((6, 5, 3))
    hidden = tail.dense(tail.add(GlobalAveragePool(), tail.image), 6, activation=RELU)
    flat_norm = tail.batch_norm(hidden)

    first = GraphBuilder((6, 5, 3))
    normed_image = first.batch_norm(first.image)

    split = GraphBuilder((6, 5, 3))
    shared = split.conv(split.image, 4)
    both = split.add(Concat(), split.function(shared), split.conv(shared, 2, activation=RELU))
    return {
        "batch_norm": norm.classified(normed),
        "batch_norm_of_vector": tail.classified(flat_norm),
        "batch_norm_of_image": first.classified(normed_image),
        "two_consumers": split.classified(both),
        "residual_block": _residual_block(),
        "residual_block_option_a": _option_a_block(),
        "squeeze_and_excitation": _squeeze_and_excitation(),
    }


def _residual_block() -> Graph:
    builder = GraphBuilder((9, 7, 3))
    x = builder.conv(builder.image, 4, activation=RELU, name="stem")
    y = builder.conv(x, 6, strides=(2, 2), activation=RELU, name="stage1/block.0/conv-1")
    y = builder.conv(y, 6, name="stage1/block.0/conv-2")
    shortcut = builder.conv(x, 6, (1, 1), strides=(2, 2), name="stage1/block.0/shortcut")
    x = builder.add(Add(activation=RELU), shortcut, y, name="stage1/block.0/add")
    x = builder.add(GlobalAveragePool(), x, name="pool")
    return builder.graph(builder.function(builder.dense(x, name="dense"), Function.SOFTMAX, name="softmax"))


def _option_a_block() -> Graph:
    builder = GraphBuilder((8, 8, 4))
    y = builder.conv(builder.image, 8, strides=(2, 2), activation=RELU)
    y = builder.conv(y, 8)
    half = builder.add(Slice(begin=(0, 0, 0), end=(8, 8, 4), strides=(2, 2, 1)), builder.image)
    shortcut = builder.add(Pad(channels=(2, 2)), half)
    return builder.classified(builder.add(Add(activation=RELU), y, shortcut))


def _squeeze_and_excitation() -> Graph:
    builder = GraphBuilder((6, 5, 8))
    squeezed = builder.add(GlobalAveragePool(keepdims=True), builder.image)
    squeezed = builder.conv(squeezed, 2, (1, 1), activation=RELU)
    gate = builder.function(builder.conv(squeezed, 8, (1, 1)), Function.SIGMOID)
    return builder.classified(builder.add(Multiply(), builder.image, gate))


OPERATOR_GRAPHS: dict[str, Graph] = {
    **_convolutions(),
    **_depthwise(),
    **_pools(),
    **_functions(),
    **_joins(),
    **_shapes(),
    **_networks(),
}
"""Graphs by name; the output of each is a vector (classes,)."""
