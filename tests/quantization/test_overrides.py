from __future__ import annotations

import pytest

from resnet_edge.errors import UsageError
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from tests.graph_builder import GraphBuilder
from tests.quantization.calibrated import observe


@pytest.fixture
def chain():
    b = GraphBuilder((6, 6, 3))
    x = b.image
    for name in ("first", "second", "third", "fourth"):
        x = b.conv(x, 4, name=name)
    return b.classified(x)


def quantize(graph, *overrides, recipe="int8", **options):
    return quantize_graph(graph, RECIPES[recipe], observe(graph), overrides=overrides, **options)


def test_a_layer_kept_float_and_its_neighbours(chain):
    quantized = quantize(chain, "second=float")
    assert quantized.spec.kept_float == {
        "second": "--override second=float",
        "third": "takes 'second', which stays float",
    }
    # The tensor between the two float layers is not rounded; those at the border to integers are.
    assert "second" not in quantized.spec.tensors
    assert {"image", "first", "third", "fourth"} <= set(quantized.spec.tensors)
    assert not {"second/weight", "third/bias"} & set(quantized.spec.constants)
    assert [name for name in ("first", "second", "third", "fourth") if quantized.is_integer(name)] == [
        "first",
        "fourth",
    ]


def test_a_tensor_that_no_integer_layer_takes_or_gives_is_not_rounded(chain):
    assert "image" not in quantize(chain, "first=float").spec.tensors
    assert not quantize(chain, "*=float").spec.tensors


def test_one_scale_for_the_weights_of_the_layers_that_match(chain):
    constants = quantize(chain, "f*t?=int8-per-tensor", "first=int8-per-tensor").spec.constants
    assert (len(constants["first/weight"].scales), constants["first/weight"].axis) == (1, None)
    assert (len(constants["first/bias"].scales), constants["first/bias"].axis) == (1, None)
    assert (len(constants["second/weight"].scales), constants["second/weight"].axis) == (4, 3)


@pytest.mark.parametrize("recipe", ["fp16", "int8-weights"])
def test_recipes_for_constants_leave_the_layer_alone(chain, recipe):
    quantized = quantize(chain, "second=float", recipe=recipe)
    assert quantized.spec.kept_float == {"second": "--override second=float"}
    assert "second/weight" not in quantized.constants
    assert "third/weight" in quantized.constants


def test_of_two_for_one_layer_the_last_holds(chain):
    assert "second" not in quantize(chain, "second=float", "sec*=int8-per-tensor").spec.kept_float


@pytest.mark.parametrize("text", ["fifth=float", "FIRST=float", "first", "=float", "first=int4", "first="])
def test_what_matches_nothing_or_says_nothing_is_refused(chain, text):
    with pytest.raises(UsageError):
        quantize(chain, text)


def test_integer_input_and_output_need_integer_layers(chain):
    assert quantize(chain, io="uint8").spec.io == "uint8"
    with pytest.raises(UsageError, match="the input cannot be int8"):
        quantize(chain, "first=float", io="int8")
    with pytest.raises(UsageError, match="the output cannot be int8"):
        quantize(chain, "head=float", io="int8")
