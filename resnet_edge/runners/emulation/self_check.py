"""Proof that an emulated processor computes: models are run there and here, and compared.

That the runtimes can be imported proves nothing: with a wrong /proc/cpuinfo LiteRT crashes at the first run,
and a wrong emulator ends every run with wrong numbers and no error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.converters import ConversionSettings, load_converter
from resnet_edge.errors import DependencyMissingError
from resnet_edge.graph import INPUT_NAME, Graph, Node
from resnet_edge.graph.execution import execute_nodes
from resnet_edge.graph.geometry import Padding
from resnet_edge.graph.operators import Activation, Add, Conv2D, Dense, GlobalAveragePool, Input
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import load_recipes
from resnet_edge.quantization.statistics import Statistics
from resnet_edge.runners import Load
from resnet_edge.runners.agent_engine import AgentEngine
from resnet_edge_converters.tflite import TFLiteConverter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.runners.sites import Site

FLOAT_TOLERANCE = 1e-5
"""Between machines, relative to max(1, largest output): sums in another order differ by some 1e-6."""

_IMAGES = 8
_SIZE, _CHANNELS, _CLASSES = 12, 24, 10
_TIMEOUT = 120.0


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A model, and how near an emulated processor must come to this one."""

    load: Load
    expected: NDArray[np.float32]
    tolerance: float


class SelfCheck:
    """An int8 model in LiteRT, which must give the same integers, and a float model in ONNX Runtime.

    Args:
        folder: For the models' files; they are run on this machine first.
    """

    def __init__(self, folder: Path) -> None:
        graph = _residual_graph()
        shape = (_IMAGES, *graph.input_shape)
        self._images = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        self._cases = (
            self._case(_write_int8(graph, self._images, folder / "self-check-int8.tflite"), 0.0),
            self._case(_write_float(graph, folder / "self-check-fp32.onnx"), FLOAT_TOLERANCE),
        )

    def _case(self, load: Load, tolerance: float) -> _Case:
        with load_converter(load.format).open(load.artifact) as engine:
            return _Case(load=load, expected=engine.run(self._images), tolerance=tolerance)

    def check(self, site: Site) -> None:
        """Run the models there.

        Raises:
            DependencyMissingError: It computes something else than this machine.
            RunnerUnreachableError: It does not answer.
        """
        for case in self._cases:
            with AgentEngine(site, case.load, timeout=_TIMEOUT) as engine:
                outputs = engine.run(self._images)
            worst = float(np.abs(outputs - case.expected).max())
            if worst > case.tolerance * max(1.0, float(np.abs(case.expected).max())):
                wrong = np.count_nonzero(outputs != case.expected)
                raise DependencyMissingError(
                    "the emulator computes wrong results",
                    where=f"{site.where}, {case.load.artifact.name}",
                    found=f"{wrong} of {outputs.size} values differ, by up to {worst:.2g}",
                    allowed=f"a relative difference of {case.tolerance:g}" if case.tolerance else "none",
                    next_step="use another version of QEMU, or verify on a board: --runner ssh://USER@HOST",
                )


def _write_int8(graph: Graph, images: NDArray[np.float32], path: Path) -> Load:
    quantized = quantize_graph(graph, load_recipes()["int8"], _extremes(graph, images), io="int8")
    TFLiteConverter().convert(graph, path, ConversionSettings(), quantized)
    return Load(artifact=path, format="tflite")


def _write_float(graph: Graph, path: Path) -> Load:
    load_converter("onnx").convert(graph, path, ConversionSettings())
    return Load(artifact=path, format="onnx")


def _extremes(graph: Graph, images: NDArray[np.float32]) -> Statistics:
    ranges = {
        node.name: (min(0.0, float(tensor.min())), max(0.0, float(tensor.max())))
        for node, tensor in execute_nodes(graph, images)
    }
    return Statistics(ranges=ranges, observed=ranges, images=len(images))


def _residual_graph() -> Graph:
    """One residual unit with seeded weights, and a classifier."""
    random = np.random.default_rng(0)

    def conv(depth: int) -> Conv2D:
        weight = random.normal(0, (9 * depth) ** -0.5, (3, 3, depth, _CHANNELS)).astype(np.float32)
        return Conv2D(
            weight=weight,
            bias=random.normal(size=_CHANNELS).astype(np.float32),
            padding=Padding.same((_SIZE, _SIZE), (3, 3), (1, 1)),
            activation=Activation.RELU,
        )

    dense = Dense(
        weight=random.normal(0, _CHANNELS**-0.5, (_CHANNELS, _CLASSES)).astype(np.float32),
        bias=np.zeros(_CLASSES, np.float32),
    )
    nodes = (
        Node(name=INPUT_NAME, op=Input(shape=(_SIZE, _SIZE, 3))),
        Node(name="stem", op=conv(3), inputs=(INPUT_NAME,)),
        Node(name="unit", op=conv(_CHANNELS), inputs=("stem",)),
        Node(name="add", op=Add(activation=Activation.RELU), inputs=("unit", "stem")),
        Node(name="pool", op=GlobalAveragePool(), inputs=("add",)),
        Node(name="logits", op=dense, inputs=("pool",)),
    )
    return Graph(name="self-check", nodes=nodes, output="logits")
