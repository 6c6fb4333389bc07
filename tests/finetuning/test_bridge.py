"""The graph as a tf_keras model computes the same, and gives its weights back unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from resnet_edge.errors import ModelRejectedError
from resnet_edge.finetuning.bridge import from_tf_keras, to_tf_keras, with_weights
from resnet_edge.graph.execution import execute
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.importing import import_keras
from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D
from resnet_edge.models import MODELS, build_model, find_model
from resnet_edge.passes import run_passes
from tests.graph_builder import GraphBuilder
from tests.graphs import OPERATOR_GRAPHS, images, residual_graphs

TRAINABLE = {
    name: graph for name, graph in OPERATOR_GRAPHS.items() if all(node.op.tier == 1 for node in graph.nodes)
}
REFUSED = {name: graph for name, graph in OPERATOR_GRAPHS.items() if name not in TRAINABLE}

CLOSE = 1e-5
"""Of max(1, max|output|): TensorFlow and NumPy add up float32 in another order."""


def assert_exact_both_ways(graph):
    model = to_tf_keras(graph)
    inputs = images(graph, 3)
    expected = execute(graph, inputs)
    np.testing.assert_allclose(
        model(inputs).numpy(), expected, rtol=0, atol=CLOSE * max(1, np.abs(expected).max())
    )
    back = from_tf_keras(model, graph)
    assert [node.name for node in back.nodes] == [node.name for node in graph.nodes]
    for node, same in zip(graph.nodes, back.nodes, strict=True):
        for role, weight in node.op.weights().items():
            np.testing.assert_array_equal(same.op.weights()[role], weight)


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_operator(name):
    assert_exact_both_ways(run_passes(TRAINABLE[name]).graph)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=residual_graphs())
def test_residual_networks(graph):
    assert_exact_both_ways(run_passes(graph).graph)


@pytest.mark.parametrize("name", MODELS)
def test_networks_of_the_registry(name):
    """All of them, narrow and on small images: blocks, strides and shortcuts are those of the full size."""
    shape = (32, 32, 3) if find_model(name).large_images else (16, 16, 3)
    model = build_model(find_model(name), input_shape=shape, classes=4, width=0.25)
    assert_exact_both_ways(run_passes(import_keras(model)).graph)


@pytest.mark.parametrize("name", REFUSED)
def test_an_operator_that_cannot_be_trained_through_is_named(name):
    graph = run_passes(REFUSED[name]).graph
    culprit = next(node for node in graph.nodes if node.op.tier > 1)
    with pytest.raises(ModelRejectedError, match="cannot be fine-tuned") as caught:
        to_tf_keras(graph)
    assert culprit.source in caught.value.where


def test_a_convolution_both_strided_and_dilated_is_named():
    builder = GraphBuilder((8, 8, 3))
    conv = builder.conv(builder.image, 4, strides=(2, 2), dilation=(2, 2), name="both")
    with pytest.raises(ModelRejectedError) as caught:
        to_tf_keras(builder.classified(conv))
    assert "both" in caught.value.where


def test_trained_weights_come_back_under_their_names():
    graph = OPERATOR_GRAPHS["residual_block"]
    model = to_tf_keras(graph)
    for layer in model.layers:
        layer.set_weights([weight + 1 for weight in layer.get_weights()])
    back = from_tf_keras(model, graph)
    for node in graph.nodes:
        if isinstance(node.op, Conv2D | DepthwiseConv2D | Dense):
            trained = back.by_name[node.name].op.weights()
            np.testing.assert_array_equal(trained["weight"], node.op.weight + 1)
            np.testing.assert_array_equal(trained["bias"], node.op.bias + 1)
    inputs = images(graph)
    # Same tolerance and reason as above.
    np.testing.assert_allclose(model(inputs).numpy(), execute(back, inputs), rtol=0, atol=CLOSE)


def test_another_graphs_model_is_refused():
    model = to_tf_keras(OPERATOR_GRAPHS["conv_1x1"])
    with pytest.raises(ValueError, match="no layer 'stem'"):
        from_tf_keras(model, OPERATOR_GRAPHS["residual_block"])


def test_a_layer_for_padding_gives_way_to_a_node_of_that_name():
    builder = GraphBuilder((8, 8, 3))
    conv = builder.conv(builder.image, 4, padding=Padding(top=1, left=2), name="conv")
    assert_exact_both_ways(builder.classified(builder.conv(conv, 3, name="conv/padding")))


def test_with_weights_leaves_the_rest_alone():
    graph = OPERATOR_GRAPHS["residual_block"]
    dense = graph.by_name["dense"].op.weights()
    other = with_weights(graph, {"dense": (dense["weight"] * 2, dense["bias"])})
    assert other.by_name["stem"].op is graph.by_name["stem"].op
    np.testing.assert_array_equal(other.by_name["dense"].op.weights()["weight"], dense["weight"] * 2)
