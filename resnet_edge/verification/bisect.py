"""A minimal reproduction of one operator: its file, its inputs, what the reference computes, and a script.

The script needs the runtime and NumPy, and nothing of this package: it is what a runtime's maintainers are
sent.
"""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.errors import UsageError
from resnet_edge.graph.execution import execute_operator, stream
from resnet_edge.graph.operators import Input
from resnet_edge.verification.blame import own_error
from resnet_edge.verification.formats import form_of
from resnet_edge.verification.layer import WRONG
from resnet_edge.verification.one_operator import given_to, write_operator
from resnet_edge.verification.operator_check import OperatorCheck, operator_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.engines import Kernels
    from resnet_edge.graph import Graph, Node
    from resnet_edge.quantization.integer import Tensor
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.layer import Layer, Layers
    from resnet_edge.verification.one_operator import OperatorFile

_TFLITE = Template('''\
"""$operator alone in LiteRT, against what the reference computes."""
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
here = Path(__file__).parent
inputs, expected = np.load(here / "inputs.npz"), np.load(here / "expected.npy")
resolver = OpResolverType.$resolver
operator = Interpreter(str(here / "operator.tflite"), experimental_op_resolver_type=resolver)
(found,) = operator.get_signature_runner()(**inputs).values()
off = np.abs(found.reshape(expected.shape) - expected.astype(float))
print(f"largest difference: {off.max():g}$unit; {np.count_nonzero(off)} of {off.size} values differ")
''')

_ONNX = Template('''\
"""$operator alone in ONNX Runtime, against what the reference computes."""
from pathlib import Path
import numpy as np
from onnxruntime import InferenceSession
here = Path(__file__).parent
inputs, expected = np.load(here / "inputs.npz"), np.load(here / "expected.npy")
operator = InferenceSession(here / "operator.onnx", providers=["CPUExecutionProvider"])
found = operator.run(None, dict(inputs))[0]
off = np.abs(found.reshape(expected.shape) - expected.astype(float))
print(f"largest difference: {off.max():g}$unit; {np.count_nonzero(off)} of {off.size} values differ")
''')

_RESOLVERS = {"xnnpack": "AUTO", "reference": "BUILTIN_REF"}


def innocence(layer: Layer) -> tuple[bool, bool, float]:
    """What to sort by: kernel bugs first, then what differs in the file, then by the error of its own."""
    return layer.verdict != "kernel bug", layer.verdict not in WRONG, own_error(layer)


def operator_to_blame(layers: Layers) -> Layer:
    """The operator that computes something else; without one, that with the largest error of its own."""
    return min((layer for layer in layers.layers if layer.operator != Input.__name__), key=innocence)


def write_reproduction(
    folder: Path,
    name: str,
    artifact: Path,
    format_: str,
    quantized: Quantized,
    images: NDArray[np.float32],
    *,
    kernels: Kernels = "xnnpack",
) -> Path:
    """Write ``operator.tflite`` or ``operator.onnx``, ``inputs.npz``, ``expected.npy`` and ``run.py``.

    The inputs are the float graph's tensors for the image on which the operator is furthest off, all as the
    file takes them.

    Args:
        folder: Where to; it is made if it is not there.
        name: The node.
        artifact: The file that it is in.
        format_: Its format, ``tflite`` or ``onnx``.
        quantized: What it was written from.
        images: Model inputs (N, height, width, channels).
        kernels: What computes a ``.tflite`` file.

    Returns:
        The script.

    Raises:
        UsageError: The node is the input, which no operator computes; or the format is another.
        ConversionFailedError: The format cannot express the node alone.
        OSError: A file cannot be written.
    """
    node = quantized.graph.by_name[name]
    if isinstance(node.op, Input):
        raise UsageError("the image itself has no operator to reproduce", where=f"node {name!r}")
    form = form_of(format_, quantized, artifact=artifact, kernels=kernels)
    folder.mkdir(parents=True, exist_ok=True)
    file = write_operator(form, name, folder / f"operator.{format_}")
    given = given_to(quantized, node, _inputs_of(node, quantized.graph, images))
    check = OperatorCheck(quantized=quantized, format=form.format, kernels=kernels)
    expected = file.form.in_file(name, check.expected(node, given))
    image = _furthest_off(file, given, expected)
    np.savez(folder / "inputs.npz", allow_pickle=False, **file.stored_inputs(given, image))
    np.save(folder / "expected.npy", expected[image : image + 1])
    script = folder / "run.py"
    template = _TFLITE if form.format == "tflite" else _ONNX
    unit = " LSB" if expected.dtype.kind in "iu" else ""
    values = {"operator": operator_name(node.op), "resolver": _RESOLVERS[kernels], "unit": unit}
    script.write_text(template.substitute(values), encoding="utf-8")
    return script


def _inputs_of(node: Node, graph: Graph, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The float graph's tensors that a node takes."""
    found: list[NDArray[np.float32]] = []

    def run(each: Node, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        if each is node:
            found.extend(inputs)
        return execute_operator(each.op, *inputs)

    for each, _ in stream(graph, images, run):
        if each is node:
            break
    return found


def _furthest_off(file: OperatorFile, given: Sequence[Tensor], expected: NDArray[Any]) -> int:
    """The image on which the operator differs most from what is expected."""
    run = file.open()

    def difference(image: int) -> float:
        found = run(file.stored_inputs(given, image)).reshape(expected[image].shape)
        return float(np.abs(found.astype(np.float64) - expected[image]).max())

    return max(range(len(expected)), key=difference)
