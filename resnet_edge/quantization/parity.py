"""The closing run of a quantization: artifacts against the float graph, on images held back for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.converters import ConversionSettings, load_converter
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import GateFailedError
from resnet_edge.graph.execution import execute_nodes
from resnet_edge.manifest import ParityRecord
from resnet_edge.quantization.calibration import images_a_step
from resnet_edge.quantization.integer import run_integer_nodes
from resnet_edge.quantization.integer_operators import dequantize
from resnet_edge.quantization.rectified_sums import rectified_addends
from resnet_edge.temporary import temporary_folder
from resnet_edge.verification.metrics import finite_or_none, sqnr_db
from resnet_edge.verification.proof import probe_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.data.datasets import Dataset
    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.engines import Engine
    from resnet_edge.graph import Graph
    from resnet_edge.quantization.spec import Quantized

COLLAPSED_DB = 10.0
"""Below this SQNR the error carries more than a tenth of the outputs' power: the file is of no use."""

CLOSING_MACS = 2**35
"""Multiply-accumulates that the closing run of one file may take: about a second on a core. Whether a file
has collapsed shows on a handful of images; how good it is, ``verify`` says."""

FEWEST_IMAGES = 8
"""Images of a closing run, however large the network."""

ENOUGH_IMAGES = 100
"""Images held back from calibration below which the user is told that there are few."""

_IMAGES_FOR_BLAME = 8


def shortage(dataset: Dataset, samples: int) -> list[str]:
    """What the user should know where few images are left behind the first ``samples``."""
    left = len(dataset) - samples
    if left >= ENOUGH_IMAGES:
        return []
    if left > 0:
        found = f"only {left} images are left behind the {samples} of the calibration"
    else:
        found = "no images are left behind those of the calibration, so the closing run sees these again"
    return [f"{found}: it tells a collapse, but no accuracy; give verify other images"]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The float graph's outputs on some images, to hold artifacts against.

    Attributes:
        source: Which images: ``held back``, ``calibration`` or ``seeded``.
        inputs: Model inputs (N, height, width, channels).
        outputs: What the float graph computes, (N, classes).
        least_db: SQNR below which an artifact has collapsed.
    """

    source: str
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]
    least_db: float = COLLAPSED_DB

    @classmethod
    def over(
        cls, graph: Graph, dataset: Dataset | None, samples: int, most: int, contract: Preprocessing
    ) -> Judge:
        """Run the float graph, in ONNX Runtime, on images behind the first ``samples``, or what there is.

        There are at most ``most``, and fewer for a large network (``CLOSING_MACS``).
        """
        most = min(most, max(FEWEST_IMAGES, CLOSING_MACS // max(1, graph.macs)))
        if dataset is None:
            height, width, channels = graph.input_shape
            source, inputs = "seeded", contract.apply(probe_images((height, width, channels)))
        else:
            behind = len(dataset) > samples
            start = samples if behind else 0
            stop = min(len(dataset), start + most)
            source = "held back" if behind else "calibration"
            inputs = np.concatenate(list(dataset.batches(start, stop, most)))
        with temporary_folder() as folder:
            path = folder / "float.onnx"
            converter = load_converter("onnx")
            converter.convert(graph, path, ConversionSettings(batch=None))
            with converter.open(path, threads=usable_cores()) as engine:
                step = images_a_step(graph)
                steps = (inputs[start : start + step] for start in range(0, len(inputs), step))
                outputs = np.concatenate([engine.run(images) for images in steps])
        return cls(source=source, inputs=inputs, outputs=outputs)

    def judge(self, engine: Engine, quantized: Quantized, *, artifact: str) -> ParityRecord:
        """Compare an artifact.

        Raises:
            GateFailedError: It has collapsed; names the layers that lose most.
        """
        outputs = engine.run(self.inputs)
        ratio = sqnr_db(self.outputs, outputs)
        agreement = float(np.mean(outputs.argmax(1) == self.outputs.argmax(1)))
        if not np.isfinite(outputs).all() or ratio < self.least_db:
            raise GateFailedError(
                f"{artifact} has collapsed",
                where=f"worst layers: {self._worst_layers(quantized)}",
                found=f"SQNR {ratio:.1f} dB, float prediction on {agreement:.0%} of {len(outputs)} images",
                allowed=f"SQNR of at least {self.least_db:.0f} dB",
                next_step="check --preprocess and the calibration images; or keep these layers float with "
                "--override 'NAME=float'. Nothing was written",
            )
        return ParityRecord(
            source=self.source,
            images=len(outputs),
            top1_agreement=agreement,
            sqnr_db=finite_or_none(ratio),
            max_abs_error=float(np.abs(outputs - self.outputs).max()),
        )

    def _worst_layers(self, quantized: Quantized) -> str:
        """The three tensors with the lowest SQNR in the integer reference.

        Addends are left out whose ranges leave out what a ReLU cuts off: their errors show in the sum.
        """
        images = self.inputs[:_IMAGES_FOR_BLAME]
        addends, found = rectified_addends(quantized.graph), []
        exact = execute_nodes(quantized.graph, images)
        integer = run_integer_nodes(quantized, images)
        for (node, reference), (_, integers) in zip(exact, integer, strict=True):
            quant = quantized.spec.tensors.get(node.name)
            if quant is not None and node.name not in addends:
                found.append((sqnr_db(reference, dequantize(integers, quant)), node.name))
        return ", ".join(f"{name} ({ratio:.1f} dB)" for ratio, name in sorted(found)[:3]) or "not known"
