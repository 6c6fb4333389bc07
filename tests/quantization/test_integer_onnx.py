"""The integer reference against ONNX Runtime's integer operators, one at a time, in uint8 activations.

Random scales make exact halves rare, and then nothing differs. Where every scale is a power of two, halves
are common, and zero points matter: additions and products add them before they round to even, so that a half
goes the other way when the output's is odd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import (
    Add,
    AveragePool2D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Elementwise,
    Function,
    GlobalAveragePool,
    Multiply,
    Operator,
)
from resnet_edge.quantization.integer_operators import Constants, Setting, quantize, run_integer_operator
from resnet_edge.quantization.requantization import ROUNDING
from resnet_edge.quantization.spec import TensorQuant

if TYPE_CHECKING:
    from numpy.typing import NDArray

MICROSOFT = "com.microsoft"
NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
PROBABILITIES = (1 / 256, -128)


def quant(scale: float, zero_point: int) -> TensorQuant:
    scale = float(np.float32(scale))
    return TensorQuant(dtype="int8", scale=scale, zero_point=zero_point, qmin=-128, qmax=127)


class Case:
    """One seeded draw of scales and integers."""

    def __init__(self, seed: int, *, halves: bool, odd: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        scales = [1 / 16, 1 / 16, 1 / 8] if halves else self.rng.uniform(0.01, 0.1, 3).tolist()
        self.a, self.b, self.c = (quant(scale, 2 * int(self.rng.integers(-64, 50)) + odd) for scale in scales)
        self.wide = quant(1 / 4 if halves else 0.4, self.c.zero_point)
        self.weight_scales = np.full(8, 1 / 128) if halves else self.rng.uniform(0.001, 0.01, 8)

    def integers(self, *shape: int) -> NDArray[np.int8]:
        return self.rng.integers(-128, 128, shape).astype(np.int8)

    def constants(self, *shape: int) -> Constants:
        return Constants(
            weight=self.rng.integers(-127, 128, shape).astype(np.int8),
            bias=self.rng.integers(-3000, 3000, 8).astype(np.int32),
            scales=self.weight_scales.astype(np.float32),
        )


def unsigned(x: NDArray[Any]) -> NDArray[np.uint8]:
    return (x.astype(np.int16) + 128).astype(np.uint8)


def meaning(name: str, quant: TensorQuant) -> dict[str, NDArray[Any]]:
    zero_point = np.asarray(quant.zero_point + 128, np.uint8)
    return {f"{name}_scale": np.asarray(quant.scale, np.float32), f"{name}_zero": zero_point}


def in_onnxruntime(
    kind: str, arguments: dict[str, NDArray[Any]], *, fed: set[str], domain: str = "", **attributes: Any
) -> NDArray[np.int16]:
    """One operator's output minus 128; ``arguments`` are in its own order."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(arguments[name].dtype), None)
        for name in fed
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, list(arguments), ["y"], domain=domain, **attributes)],
        "one",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(value, name) for name, value in arguments.items() if name not in fed],
    )
    versions = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {name: arguments[name] for name in fed})
    return np.asarray(y, np.int16) - 128


def ours(op: Operator, setting: Setting, *inputs: NDArray[Any]) -> NDArray[np.int16]:
    return run_integer_operator(op, setting, *inputs).astype(np.int16)


def single(*inputs: TensorQuant, output: TensorQuant, constants: Constants | None = None) -> Setting:
    return Setting(inputs=inputs, output=output, kernels="single", constants=constants)


def convolution(case: Case, *, depthwise: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    one = Padding(top=1, bottom=1, left=1, right=1)
    x, bias = case.integers(2, 9, 7, 4), np.zeros(8, np.float32)
    constants = case.constants(3, 3, 4, 2 if depthwise else 8)
    weight = constants.weight.astype(np.float32)
    op: Operator = Conv2D(weight=weight, bias=bias, padding=one, strides=(2, 1))
    moved = constants.weight.transpose(3, 2, 0, 1)
    if depthwise:
        op = DepthwiseConv2D(weight=weight, bias=bias, padding=one, strides=(2, 1))
        moved = constants.weight.reshape(3, 3, 1, 8).transpose(3, 2, 0, 1)
    arguments = {
        "x": unsigned(x).transpose(NCHW),
        **meaning("x", case.a),
        "w": np.ascontiguousarray(moved),
        "w_scale": constants.scales,
        "w_zero": np.zeros(8, np.int8),
        **meaning("y", case.wide),
        "b": np.asarray(constants.bias),
    }
    groups = 4 if depthwise else 1
    y = in_onnxruntime("QLinearConv", arguments, fed={"x"}, pads=[1] * 4, strides=[2, 1], group=groups)
    return ours(op, single(case.a, output=case.wide, constants=constants), x), y.transpose(NHWC)


def dense(case: Case) -> tuple[NDArray[Any], NDArray[Any]]:
    x, constants = case.integers(64, 32), case.constants(32, 8)
    arguments = {
        "x": unsigned(x),
        **meaning("x", case.a),
        "w": np.asarray(constants.weight),
        "w_scale": constants.scales,
        "w_zero": np.zeros(8, np.int8),
        "b": np.asarray(constants.bias),
        **meaning("y", case.wide),
    }
    op = Dense(weight=np.zeros((32, 8), np.float32), bias=np.zeros(8, np.float32))
    expected = in_onnxruntime("QGemm", arguments, fed={"x"}, domain=MICROSOFT)
    return ours(op, single(case.a, output=case.wide, constants=constants), x), expected


def join(case: Case, kind: str, op: Operator) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = case.integers(2, 8, 8, 16), case.integers(2, 8, 8, 16)
    arguments = {
        "a": unsigned(a),
        **meaning("a", case.a),
        "b": unsigned(b),
        **meaning("b", case.b),
        **meaning("y", case.c),
    }
    expected = in_onnxruntime(kind, arguments, fed={"a", "b"}, domain=MICROSOFT)
    return ours(op, single(case.a, case.b, output=case.c), a, b), expected


def pool(case: Case, kind: str, op: Operator, output: TensorQuant, **attributes: Any):
    # Means of four, which are often halves.
    x = case.integers(*((50, 2, 2, 16) if isinstance(op, GlobalAveragePool) else (2, 8, 8, 16)))
    arguments = {
        "x": np.ascontiguousarray(unsigned(x).transpose(NCHW)),
        **meaning("x", case.a),
        **meaning("y", output),
    }
    y = in_onnxruntime(kind, arguments, fed={"x"}, domain=MICROSOFT, channels_last=0, **attributes)
    return ours(op, single(case.a, output=output), x), y.transpose(NHWC)


def function(case: Case, kind: str, which: Function, **attributes: Any):
    x, output = case.integers(64, 10), quant(*PROBABILITIES)
    arguments = {"x": unsigned(x), **meaning("x", case.a), **meaning("y", output)}
    expected = in_onnxruntime(kind, arguments, fed={"x"}, domain=MICROSOFT, **attributes)
    return ours(Elementwise(function=which), single(case.a, output=output), x), expected


def image(case: Case) -> tuple[NDArray[Any], NDArray[Any]]:
    x = (np.float32(case.a.scale) * (case.rng.integers(-200, 200, 500) / np.float32(2))).astype(np.float32)
    arguments = {"x": x, **meaning("y", case.a)}
    even = ROUNDING["single", "int8"][Elementwise]
    return quantize(x, case.a, even), in_onnxruntime("QuantizeLinear", arguments, fed={"x"})


PAIR = {"kernel_shape": [2, 2], "strides": [2, 2]}
OPERATORS = {
    "conv": lambda case: convolution(case, depthwise=False),
    "depthwise": lambda case: convolution(case, depthwise=True),
    "dense": dense,
    "add": lambda case: join(case, "QLinearAdd", Add()),
    "multiply": lambda case: join(case, "QLinearMul", Multiply()),
    "average_pool": lambda case: pool(
        case, "QLinearAveragePool", AveragePool2D(size=(2, 2), strides=(2, 2)), case.a, **PAIR
    ),
    "global_average_pool": lambda case: pool(
        case, "QLinearGlobalAveragePool", GlobalAveragePool(keepdims=True), case.c
    ),
    "sigmoid": lambda case: function(case, "QLinearSigmoid", Function.SIGMOID),
    "softmax": lambda case: function(case, "QLinearSoftmax", Function.SOFTMAX, axis=-1, opset=17),
    "input": image,
}
ZERO_POINT_FIRST = ["add", "multiply"]
FLOAT_MEAN = {"average_pool"}
"""ONNX Runtime averages real numbers in float32, which moves some halves of a mean of four."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_equal_onnxruntime_but_for_halves(name: str, seed: int) -> None:
    actual, expected = OPERATORS[name](Case(seed, halves=False))
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference != 0).mean() <= (0.05 if name in FLOAT_MEAN else 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OPERATORS)
def test_halves_are_rounded_to_even(name: str, seed: int) -> None:
    actual, expected = OPERATORS[name](Case(seed, halves=True))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_halves_above_an_odd_zero_point(name: str) -> None:
    actual, expected = OPERATORS[name](Case(0, halves=True, odd=1))
    assert np.abs(actual.astype(int) - expected).max() == (1 if name in ZERO_POINT_FIRST else 0)
