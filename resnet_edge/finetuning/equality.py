"""Whether the integers that are exported compute what the trained model computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.errors import ConversionFailedError
from resnet_edge.quantization.integer import run_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.quantization.spec import Quantized

LEAST_EQUAL = 0.99
"""Share of predictions, and of outputs, that have to be the same: float32 sums fall on the other side of a
half in one of ten thousand, while a defect shows in far more than one of a hundred."""

_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Equality:
    """How alike two models are.

    Attributes:
        same_prediction: Share of images; ties go to the lowest index.
        within_a_step: Share of outputs that differ by one step of the output or less.
    """

    same_prediction: float
    within_a_step: float


def compare(model: Any, quantized: Quantized, images: NDArray[np.float32]) -> Equality:
    """Run the trained model, and its integers exactly, with a single rounding.

    Args:
        model: The fake-quantized ``tf_keras`` model.
        quantized: What came of it.
        images: Model inputs (N, height, width, channels).

    Raises:
        ConversionFailedError: They differ by more than rounding explains.
    """
    trained = outputs_of(model, images)
    exact = run_integer(quantized, images)
    quant = quantized.spec.tensors.get(quantized.graph.output)
    step = 0.0 if quant is None else quant.scale
    equality = Equality(
        same_prediction=float(np.mean(trained.argmax(1) == exact.argmax(1))),
        # Half a step more: outputs are whole numbers of steps up to float32's rounding.
        within_a_step=float(np.mean(np.abs(trained - exact) <= 1.5 * step)) if quant else 1.0,
    )
    if min(equality.same_prediction, equality.within_a_step) < LEAST_EQUAL:
        raise ConversionFailedError(
            "the exported integers do not compute what was trained",
            where=quantized.graph.name,
            found=f"the same prediction on {equality.same_prediction:.2%} of {len(images)} images, "
            f"{equality.within_a_step:.2%} of the outputs within a step",
            allowed=f"{LEAST_EQUAL:.0%}",
            next_step="this is a defect of resnet-edge: please report it with the bundle",
        )
    return equality


def outputs_of(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a ``tf_keras`` model computes, (N, classes), some images at a time."""
    starts = range(0, len(images), _IMAGES)
    return np.concatenate(
        [np.asarray(model(images[start : start + _IMAGES], training=False)) for start in starts]
    )
