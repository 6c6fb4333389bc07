"""What an artifact takes and gives, wherever it runs: layout, batch, and what its integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.engines.batching import run_in_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from resnet_edge.engines.integers import IntegerForm
    from resnet_edge.graph.geometry import Shape


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The two ends of an artifact that takes one image and gives one output.

    Attributes:
        image_shape: (height, width, channels).
        batch: Images a run; None where it takes any number.
        nchw: Whether it takes an image's channels first.
        input_form: How its input's integers are to be read; None where they are real numbers.
        output_form: The same of its output.
    """

    image_shape: Shape
    batch: int | None
    nchw: bool = False
    input_form: IntegerForm | None
    output_form: IntegerForm | None

    def raw(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Model inputs (n, height, width, channels) as the artifact takes them, contiguous."""
        arranged = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if self.nchw else images
        return arranged if self.input_form is None else self.input_form.quantized(arranged)

    def real(self, outputs: NDArray[Any]) -> NDArray[np.float32]:
        """What the artifact gives, as real numbers."""
        return outputs if self.output_form is None else self.output_form.real(outputs)

    def run(
        self,
        images: NDArray[np.float32],
        run: Callable[[NDArray[Any]], NDArray[Any]],
        *,
        at_once: int | None = None,
    ) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels).

        Args:
            images: At least one.
            run: The artifact: from what it takes, as many images as ``at_once`` allows, to what it gives.
            at_once: Images a call of ``run`` at most, or one batch if that is more; None for one batch.

        Raises:
            DataRejectedError: The images do not have the artifact's shape, or there are none.
        """
        return run_in_batches(
            images,
            image_shape=self.image_shape,
            batch=self.batch,
            run=lambda chunk: self.real(run(self.raw(chunk))),
            at_once=at_once,
        )
