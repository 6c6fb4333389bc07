"""An artifact layer by layer: where it leaves the float graph, and whether kernels or quantization did it.

Three comparisons for each tensor, on a few images:

As run
    The tensor as it occurs in the file's run against the float graph's: all errors up to there.
Alone
    The operator as a file of its own, fed with the float graph's tensors (quantized as the spec says),
    against the float graph's: the error of quantizing this one operator.
Against the reference
    The operator, alone and in the file, against the exact integer reference on the very inputs that it had.
    Quantization has no part in that difference: beyond one step (for real numbers: beyond what their
    precision explains) the operator computes something else.

Where a tensor is added to another in front of a ReLU and serves for nothing else, the first two compare what
the ReLU lets matter of it: ranges leave out the rest (:mod:`resnet_edge.quantization.rectified_sums`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ResnetEdgeError
from resnet_edge.graph.execution import execute_operator, stream
from resnet_edge.graph.operators import Input
from resnet_edge.quantization.integer_operators import dequantize
from resnet_edge.quantization.rectified_sums import effective, rectified_addends
from resnet_edge.temporary import temporary_folder
from resnet_edge.verification.blame import blame
from resnet_edge.verification.formats import form_of
from resnet_edge.verification.layer import Layer
from resnet_edge.verification.metrics import reported_sqnr
from resnet_edge.verification.one_operator import given_to, write_operator
from resnet_edge.verification.operator_check import OperatorCheck, operator_name
from resnet_edge.verification.tensors import run_exposed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.engines import Kernels
    from resnet_edge.graph import Node
    from resnet_edge.quantization.integer import Tensor
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.formats import FileForm
    from resnet_edge.verification.layer import Layers, OperatorVerdict
    from resnet_edge.verification.operator_check import Deviation
    from resnet_edge.verification.tensors import ExposedRun

IMAGES = 4
"""Most images that layers are compared on: a map has thousands of elements on each, and the float graph and
the integer reference run in NumPy."""


def compare_layers(
    artifact: Path,
    format_: str,
    quantized: Quantized,
    images: NDArray[np.float32],
    *,
    kernels: Kernels = "xnnpack",
) -> Layers:
    """Compare every tensor of an artifact of ours, as run and alone.

    Args:
        artifact: The file.
        format_: ``tflite`` or ``onnx``.
        quantized: What it was written from; ``Quantized.in_float(graph)`` for float32.
        images: Model inputs (N, height, width, channels), N at least 1; the first ``IMAGES`` are used.
        kernels: What computes a ``.tflite`` file.

    Raises:
        UsageError: The format's inner tensors cannot be seen (:func:`.formats.why_not_exposed`).
        ModelRejectedError: The runtime does not accept the file.
        DependencyMissingError: The runtime is not installed.
        DataRejectedError: The images do not have the file's shape.
    """
    images = images[:IMAGES]
    form = form_of(format_, quantized, artifact=artifact, kernels=kernels)
    run = run_exposed(artifact, form, images)
    layers: list[Layer] = []
    with temporary_folder() as folder:
        check = OperatorCheck(quantized=quantized, format=form.format, kernels=kernels)
        comparison = _Comparison(form, run, check, folder, rectified_addends(quantized.graph))

        def visit(node: Node, inputs: Sequence[Tensor]) -> NDArray[np.float32]:
            exact = execute_operator(node.op, *inputs)
            if node.name in quantized.spec.tensors or not isinstance(node.op, Input):
                layers.append(comparison.layer(node, inputs, exact))
            return exact

        for _ in stream(quantized.graph, images, visit):
            pass  # the visits are what it is about
    return blame(quantized.graph, layers, run)


@dataclass(frozen=True)
class _Comparison:
    """A file's run, beside which the layers are looked at one by one."""

    form: FileForm
    run: ExposedRun
    check: OperatorCheck
    folder: Path
    addends: Mapping[str, str]

    def layer(self, node: Node, inputs: Sequence[NDArray[np.float32]], exact: NDArray[np.float32]) -> Layer:
        """One node.

        Args:
            node: The node.
            inputs: The float graph's tensors that it takes; the images for the input node.
            exact: The one that it gives.
        """
        missing = [name for name in (*node.inputs, node.name) if name not in self.run.tensors]
        if missing:
            return _not_run(node, f"the file has no tensor {missing[0]!r}")
        given = [self.run.tensors[name] for name in node.inputs] or inputs
        found = self.run.tensors[node.name]
        in_file = self.check.deviation(node, given, found)
        try:
            # What goes in is the same for the input node, whatever comes behind it.
            output, alone = (found, in_file) if isinstance(node.op, Input) else self._alone(node, inputs)
        except ResnetEdgeError as error:
            return _not_run(node, error.what, as_run_db=self._db(node, exact, found))
        steps = [deviation.lsb for deviation in (alone, in_file) if deviation.lsb is not None]
        return Layer(
            node=node.name,
            operator=operator_name(node.op),
            as_run_db=self._db(node, exact, found),
            alone_db=self._db(node, exact, output),
            max_lsb=max(steps, default=None),
            verdict=_verdict(alone, in_file),
        )

    def _alone(self, node: Node, inputs: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Deviation]:
        """What the operator computes of the float graph's tensors, in a file of its own."""
        given = given_to(self.form.quantized, node, inputs)
        path = self.folder / "operator"
        path.unlink(missing_ok=True)
        file = write_operator(self.form, node.name, path)
        run = file.open()
        images = range(len(given[0]))
        stored = np.concatenate([run(file.stored_inputs(given, image)) for image in images])
        output = file.form.in_graph(node.name, stored)
        return output, self.check.deviation(node, given, output)

    def _db(self, node: Node, exact: NDArray[np.float32], tensor: Tensor) -> float | None:
        if node.name not in self.form.quantized.spec.tensors:
            return reported_sqnr(exact, tensor)
        real = self._real(node.name, tensor)
        other = self.addends.get(node.name)
        if other is not None and other in self.run.tensors:
            # The file's own, as the float graph may not have come to it yet; it is the same on both sides.
            beside = self._real(other, self.run.tensors[other])
            exact, real = effective(exact, beside), effective(real, beside)
        return reported_sqnr(exact, real)

    def _real(self, name: str, tensor: Tensor) -> NDArray[np.float32]:
        """A tensor of the file as real numbers."""
        quant = self.form.quantized.spec.tensors.get(name)
        return tensor if quant is None else dequantize(tensor, quant)


def _verdict(alone: Deviation, in_file: Deviation) -> OperatorVerdict:
    if not alone.is_allowed:
        return "kernel bug"
    if not in_file.is_allowed:
        return "differs in file"
    if alone.lsb is None or in_file.lsb is None:
        return "rounding"
    return "within 1 LSB" if max(alone.lsb, in_file.lsb) else "exact"


def _not_run(node: Node, reason: str, *, as_run_db: float | None = None) -> Layer:
    return Layer(
        node=node.name,
        operator=operator_name(node.op),
        as_run_db=as_run_db,
        alone_db=None,
        max_lsb=None,
        verdict="not run",
        reason=reason,
    )
