"""The converter for SavedModel.

TensorFlow takes seconds and half a gigabyte to load: it is loaded when a folder is written, read or opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.engines.savedmodel import SavedModelEngine
from resnet_edge.quantization.spec import Quantized

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Graph
    from resnet_edge.quantization.readback import FileContent


class SavedModelConverter:
    """Writes SavedModel folders: one signature ``serving_default``, variables ``<node>/<role>``.

    ``savedmodel_constants`` says what the variables are (``stored_arrays``) and how
    ``tf.train.load_checkpoint`` names them (``checkpoint_keys``).
    """

    suffix = "-savedmodel"
    recipes = frozenset({"fp16", "int8", "int8-per-tensor", "int16x8", "int8-weights"})

    def convert(
        self,
        graph: Graph,
        destination: Path,
        settings: ConversionSettings,
        quantized: Quantized | None = None,
    ) -> None:
        """Write ``graph``, or ``quantized``, to the folder ``destination``, which does not exist yet.

        On failure nothing is left of the folder.

        Raises:
            ConversionFailedError: An operator has no form in TensorFlow, or the signature cannot have the
                element type that the spec asks for.
            OSError: The folder cannot be written.
        """
        from resnet_edge_converters.savedmodel_writing import write_savedmodel

        write_savedmodel(quantized or Quantized.in_float(graph), destination, settings)

    def read_back(self, path: Path, quantized: Quantized) -> FileContent:
        """The scales, zero points and integers that a SavedModel really holds.

        Raises:
            ModelRejectedError: The folder has no readable checkpoint.
        """
        from resnet_edge_converters.savedmodel_readback import read_content

        return read_content(path, quantized)

    def open(self, artifact: Path, *, threads: int = 1) -> SavedModelEngine:
        """The artifact in TensorFlow.

        Raises:
            DependencyMissingError: TensorFlow is not installed.
            ModelRejectedError: TensorFlow does not accept the folder.
        """
        return SavedModelEngine(artifact, threads=threads)
