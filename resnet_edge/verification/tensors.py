"""Every tensor of an artifact as it occurs in a run, by the node that computes it.

LiteRT keeps all tensors on request; for ONNX Runtime they are made outputs of a copy of the file in memory.
The copy is optimized like the file itself, but operators stay apart that would be fused if the tensor between
them were not wanted. So the untouched file is run too, and the outputs of the two runs are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph import INPUT_NAME
from resnet_edge.quantization.integer import run_operator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.quantization.integer import Tensor
    from resnet_edge.verification.formats import FileForm


@dataclass(frozen=True, kw_only=True, eq=False)
class ExposedRun:
    """A run of an artifact with its tensors.

    Attributes:
        tensors: By node name, (N, ...), as the integer reference has them; without those that the file lacks.
        outputs: What that run gives, (N, classes).
        shipped: What the untouched file gives for the same images.
    """

    tensors: Mapping[str, Tensor]
    outputs: NDArray[np.float32]
    shipped: NDArray[np.float32]

    @property
    def difference(self) -> float:
        """The largest between the two runs: 0.0 proves that these are the tensors of the file as shipped."""
        equal = np.array_equal(self.outputs, self.shipped, equal_nan=True)
        return 0.0 if equal else float(np.abs(self.outputs - self.shipped).max())


def run_exposed(artifact: Path, form: FileForm, images: NDArray[np.float32]) -> ExposedRun:
    """Run an artifact image by image with all tensors in sight.

    All tensors of all images are in memory at the end, integers as such: 11 MB an image for ResNet-50.

    Args:
        artifact: The file.
        form: How it holds its tensors.
        images: Model inputs (N, height, width, channels).

    Raises:
        ModelRejectedError: The runtime does not accept the file.
        DependencyMissingError: The runtime is not installed.
        DataRejectedError: The images do not have the file's shape.
    """
    with form.open(artifact, exposed=False) as engine:
        # One by one here too: a runtime may sum in another order where there are several.
        shipped = np.concatenate([engine.run(image[None]) for image in images])
    parts: dict[str, list[Tensor]] = {}
    outputs = []
    with form.open(artifact, exposed=True) as engine:
        for image in images:
            outputs.append(engine.run(image[None]))
            for name, tensor in form.tensors(engine).items():
                parts.setdefault(name, []).append(tensor)
    run = np.concatenate(outputs)
    graph = form.quantized.graph
    tensors = {name: np.concatenate(tensors) for name, tensors in parts.items()}
    # What goes in and what comes out is known also where a file has it in another type than inside.
    tensors.setdefault(INPUT_NAME, run_operator(form.quantized, graph.nodes[0], [images]))
    tensors.setdefault(graph.output, form.in_graph(graph.output, run))
    return ExposedRun(tensors=tensors, outputs=run, shipped=shipped)
