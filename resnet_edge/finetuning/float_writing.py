"""Float artifacts of a graph that training changed: written, run against the trained model, and read back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from resnet_edge import bundle as bundles
from resnet_edge.contents import artifact_contract, conversion_settings
from resnet_edge.converters import load_converter
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import ConversionFailedError
from resnet_edge.inspection.files import FileFormat
from resnet_edge.inspection.weights import WeightFigures, weight_figures
from resnet_edge.manifest import ProofRecord
from resnet_edge.verification.proof import FLOAT_TOLERANCE, probe_images

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.converters import Converter
    from resnet_edge.graph import Graph
    from resnet_edge.manifest import ArtifactRecord, Manifest
    from resnet_edge.stages import Stages

REFERENCE = "the trained model run by TensorFlow"


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatWriter:
    """Writes into one bundle in the making.

    Attributes:
        folder: The bundle.
        manifest: Of the bundle that was trained: says which formats there are, and their layout.
        graph: What is written.
        model: The trained ``tf_keras`` model that it came from.
        stages: Times the work.
    """

    folder: Path
    manifest: Manifest
    graph: Graph
    model: Any
    stages: Stages

    def write(self) -> tuple[ArtifactRecord, ...]:
        """An artifact in every float format of the bundle.

        Raises:
            ConversionFailedError: One computes something else than the trained model, or has other weights.
        """
        height, width, channels = self.graph.input_shape
        inputs = artifact_contract(self.manifest).apply(probe_images((height, width, channels)))
        outputs = np.asarray(self.model(inputs, training=False))
        formats = [record.format for record in self.manifest.artifacts if record.precision == "fp32"]
        return tuple(self._write(name, inputs, outputs) for name in dict.fromkeys(formats))

    def _write(self, name: str, inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> ArtifactRecord:
        converter = load_converter(name)
        path = self.folder / f"{self.manifest.model.name}-fp32{converter.suffix}"
        bundles.remove(path)
        with self.stages.stage(f"write {name}"):
            converter.convert(self.graph, path, conversion_settings(self.manifest))
        with self.stages.stage(f"prove {name}"):
            proof = self._prove(converter, path, inputs, outputs)
            self._check_weights(name, path)
        return bundles.float_record(path, name, proof)

    def _prove(
        self, converter: Converter, path: Path, inputs: NDArray[np.float32], outputs: NDArray[np.float32]
    ) -> ProofRecord:
        with converter.open(path, threads=usable_cores()) as engine:
            error = float(np.abs(engine.run(inputs) - outputs).max())
        largest = float(np.abs(outputs).max())
        limit = FLOAT_TOLERANCE * max(1.0, largest)
        if not error <= limit:
            raise ConversionFailedError(
                f"{path.name} does not compute what was trained",
                found=f"max abs error {error:.3g} on {len(inputs)} seeded images",
                allowed=f"{limit:.3g}",
                next_step="this is a defect of resnet-edge or of the runtime: please report it",
            )
        return ProofRecord(
            reference=REFERENCE,
            images=len(inputs),
            max_abs_error=error,
            max_abs_reference=largest,
            limit=limit,
        )

    def _check_weights(self, name: str, path: Path) -> None:
        """See that the file has the zeros and the few values that training was for.

        A format may turn and reshape a weight, but not change its values. SavedModels are not looked into.

        Raises:
            ConversionFailedError: A weight is missing.
        """
        if name not in get_args(FileFormat):
            return
        stored = weight_figures(path, name)  # type: ignore[arg-type] # just checked
        weights = (node.op.weights().get("weight") for node in self.graph.nodes)
        missing = Counter(WeightFigures.of(each) for each in weights if each is not None) - Counter(stored)
        if missing:
            raise ConversionFailedError(
                f"{path.name} does not hold the weights that were trained",
                found=f"no {next(iter(missing))}",
                next_step="this is a defect of resnet-edge: please report it with the bundle",
            )
