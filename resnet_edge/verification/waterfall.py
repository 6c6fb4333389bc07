"""Where the error arises on the way from the user's model to the runtime, step by step.

Float model, folded graph, what the recipe makes of it (executed exactly), runtime: each step is compared with
the float model and with the step before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.execution import execute
from resnet_edge.quantization.integer import run_integer
from resnet_edge.verification.metrics import reported_sqnr
from resnet_edge.verification.report import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.requantization import Kernels as Rounding
    from resnet_edge.quantization.spec import Quantized

IMAGES = 256
"""Most images that the steps before the runtime are computed on."""

_FEWEST_IMAGES = 8

_MOST_MACS = 10**11
"""Multiply-accumulates of all images together that NumPy is asked for: some 5 seconds for the float graph on
one core and 10 for its integers."""

_CHUNK = 16
"""Images a run of the float graph: bounds the memory for unfolded convolutions."""


def images_for(graph: Graph) -> int:
    """How many images the steps before the runtime are computed on: 256 for ResNet-8, 24 for ResNet-50."""
    return max(_FEWEST_IMAGES, min(IMAGES, _MOST_MACS // max(1, graph.macs)))


def steps_before(
    quantized: Quantized, images: NDArray[np.float32], *, rounding: Rounding = "single"
) -> tuple[tuple[str, NDArray[np.float32]], ...]:
    """What the folded graph, and then the recipe, computes without any runtime, by the step's name.

    Args:
        quantized: What the artifact was written from; for a float32 artifact the folded graph is all.
        images: Model inputs (N, height, width, channels); the first :func:`images_for` are used.
        rounding: Of the kernels that the artifact runs on.
    """
    graph, spec = quantized.graph, quantized.spec
    images = images[: images_for(graph)]
    chunks = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
    folded = np.concatenate([execute(graph, chunk) for chunk in chunks])
    if not (spec.tensors or spec.constants):
        return (("folded graph", folded),)
    what = "integer reference" if spec.tensors else "constants"
    return ("folded graph", folded), (
        f"{spec.recipe} {what}",
        run_integer(quantized, images, kernels=rounding),
    )


def waterfall(
    reference: NDArray[np.float32], steps: Sequence[tuple[str, NDArray[np.float32]]]
) -> tuple[Step, ...]:
    """Every step against the float reference, and against the step before.

    Args:
        reference: The float reference's outputs (N, classes).
        steps: Names with outputs (M, classes), in the order in which one follows from the other; the
            runtime's last. Where these are not equally many, the first images that all have are compared.
    """
    count = min(len(reference), *(len(outputs) for _, outputs in steps))
    reference = reference[:count]
    found, before = [], reference
    for name, outputs in ((name, outputs[:count]) for name, outputs in steps):
        found.append(
            Step(
                name=name,
                sqnr_db=reported_sqnr(reference, outputs),
                step_sqnr_db=reported_sqnr(before, outputs),
                changed=_changed(reference, outputs),
                step_changed=_changed(before, outputs),
                images=count,
            )
        )
        before = outputs
    return tuple(found)


def _changed(before: NDArray[np.float32], after: NDArray[np.float32]) -> int:
    """Images with another first class; of equal outputs the lowest index comes first."""
    return int(np.count_nonzero(before.argmax(axis=1) != after.argmax(axis=1)))
