"""The same artifact on two machines: what must come out equal, and how equal.

Kernels of one set compute integers to the bit alike on every processor, but for TFLite's softmax. Float
kernels order their sums differently, and processors with float16 arithmetic use it where others compute in
float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.operators import Elementwise, Function
from resnet_edge.verification.proof import HALF_TOLERANCE
from resnet_edge.verification.report import Check

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.engines import Kernels
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.runners import Machine
    from resnet_edge.verification.opening import Place
    from resnet_edge.verification.report import Verdict
    from resnet_edge.verification.target import Candidate

FLOAT_TOLERANCE = 1e-5
"""Allowed share of max(1, max|output|) between two runs of one float32 file; 2e-6 was seen."""

SOFTMAX_STEP = 1 / 256
"""One step of a softmax's output: of 1000 probabilities of the shipped model, one differed by it between x86
and ARM, with equal logits in front."""

_HALF_FEATURES = frozenset({"fphp", "asimdhp"})
"""Of processors with float16 arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """How far two machines may be apart on one artifact.

    Attributes:
        tolerance: Share of max(1, max|output|); 0 for equality. None: nothing is promised, for ``reason``.
        reason: Why it is what it is.
    """

    tolerance: float | None
    reason: str


def promised(candidate: Candidate, quantized: Quantized | None, kernels: Kernels, *, half: bool) -> Promise:
    """What holds between two machines.

    Args:
        candidate: The artifact.
        quantized: What it was written from; None where that is not known.
        kernels: What computes a ``.tflite``.
        half: One of the machines has float16 arithmetic.
    """
    precision = candidate.precision if quantized is None else quantized.spec.recipe
    if precision in ("int8", "int8-per-tensor", "int16x8"):
        doubt = _doubt(candidate, quantized, precision, kernels)
        if doubt:
            return Promise(tolerance=None, reason=doubt)
        if candidate.format == "tflite" and kernels == "xnnpack" and _ends_in_softmax(quantized):
            return Promise(tolerance=SOFTMAX_STEP, reason="TFLite's softmax has tables of a processor's own")
        return Promise(tolerance=0.0, reason="integer kernels of one set are exact everywhere")
    if precision in ("fp16", "int8-weights") and half:
        return Promise(tolerance=HALF_TOLERANCE, reason="one of the two has float16 arithmetic")
    return Promise(tolerance=FLOAT_TOLERANCE, reason="float32 sums in another order")


def _doubt(candidate: Candidate, quantized: Quantized | None, precision: str, kernels: Kernels) -> str:
    """Why integers need not come out equal; empty where they must."""
    if quantized is None:
        return "what the file was written from is not known"
    if quantized.spec.kept_float:
        return "some of its layers stay float"
    if candidate.format == "tflite" and precision == "int16x8" and kernels == "xnnpack":
        return "XNNPACK has no int16 kernels, and those behind it are a processor's own"
    if candidate.format == "onnx" and _has_signed_activations(candidate.path):
        return "with int8 activations ONNX Runtime's kernels are a processor's own"
    return "TensorFlow simulates the integers" if candidate.format == "savedmodel" else ""


def _ends_in_softmax(quantized: Quantized | None) -> bool:
    if quantized is None:
        return False
    op = quantized.graph.by_name[quantized.graph.output].op
    return isinstance(op, Elementwise) and op.function is Function.SOFTMAX


def _has_signed_activations(path: Path) -> bool:
    from resnet_edge.inspection.onnx_arithmetic import arithmetic
    from resnet_edge.inspection.onnx_file import read_onnx

    return any(product.features == "int8" for product in arithmetic(read_onnx(path)))


def has_half_arithmetic(machine: Machine) -> bool:
    """Whether a processor computes in float16."""
    return not _HALF_FEATURES.isdisjoint(machine.features)


def compare_machines(
    place: Place, here: NDArray[np.float32], there: NDArray[np.float32], promise: Promise
) -> Check:
    """Hold an artifact's outputs on a device against those of this machine.

    Args:
        place: The artifact and the device.
        here: Outputs on this machine, (N, classes).
        there: Outputs on the device.
        promise: What holds between the two.
    """
    error = float(np.abs(here - there).max())
    same = int(np.count_nonzero(here.argmax(1) == there.argmax(1)))
    sentence = (
        f"on {len(here):,} images {place.runner} is at most {error:.3g} from this machine and gives the same "
        f"prediction on {same:,}"
    )
    limit = None
    if promise.tolerance is None:
        verdict: Verdict = "skipped"
        sentence += f"; nothing is promised: {promise.reason}"
    else:
        limit = promise.tolerance * max(1.0, float(np.abs(here).max()))
        verdict = "pass" if error <= limit else "fail"
        sentence += f"; at most {limit:.3g} is allowed: {promise.reason}"
    if verdict == "fail":
        sentence += "; compare the runtimes' versions and the processors' features"
    return Check(
        name="machine",
        artifact=place.candidate.name,
        runner=place.runner,
        verdict=verdict,
        sentence=sentence,
        found=error,
        limit=limit,
    )
