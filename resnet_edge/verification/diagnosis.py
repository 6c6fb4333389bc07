"""Where the error of an artifact arises, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError
from resnet_edge.verification.formats import why_not_exposed
from resnet_edge.verification.layers import compare_layers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.runners import Kernels
    from resnet_edge.verification.gates import Subject
    from resnet_edge.verification.report import Check, Layers, Verdict
    from resnet_edge.verification.target import Candidate

_UNKNOWN = (
    "what the file was written from is not known, so its layers have nothing to be compared with: layers are "
    "for artifacts of a bundle that was exported with folding"
)


def look_into(
    candidate: Candidate,
    quantized: Quantized | None,
    images: NDArray[np.float32],
    subject: Subject,
    *,
    kernels: Kernels,
) -> tuple[Layers | None, Check]:
    """Compare an artifact's layers, and say whether every operator computes what it is to compute.

    Args:
        candidate: The artifact, which runs on this machine.
        quantized: What it was written from; None where that is not known.
        images: What it takes, (N, height, width, channels); a few are used.
        subject: The artifact and where it runs, for the verdict.
        kernels: What computes a ``.tflite`` file.
    """
    reason = why_not_exposed(candidate.format) or ("" if quantized else _UNKNOWN)
    if reason or quantized is None:
        return None, subject.check("operators", "skipped", reason)
    try:
        layers = compare_layers(candidate.path, candidate.format, quantized, images, kernels=kernels)
    except ModelRejectedError as error:
        return None, subject.check("operators", "fail", f"{error.what}: {error.found}")
    verdict: Verdict = "fail" if layers.kernel_bugs else "pass"
    return layers, subject.check("operators", verdict, layers.sentence)
