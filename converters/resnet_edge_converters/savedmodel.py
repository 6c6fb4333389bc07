"""The converter for SavedModel: the graph traced once as one ``tf.function`` over named variables."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resnet_edge import __version__
from resnet_edge.engines.savedmodel import SIGNATURE, SavedModelEngine
from resnet_edge.graph import INPUT_NAME
from resnet_edge.tensorflow_import import tf
from resnet_edge_converters.savedmodel_constants import NodeConstants, attach, make_variables, scope
from resnet_edge_converters.savedmodel_operators import compute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.graph import Graph

METADATA_FILE = "assets.extra/resnet_edge.json"
"""Where the metadata is kept: the format sets ``assets.extra`` aside for files that no graph reads."""


class SavedModelConverter:
    """Writes SavedModel folders: float32, one signature ``serving_default``, variables ``<node>/<role>``.

    ``savedmodel_constants.attach`` says how ``tf.train.load_checkpoint`` names the variables.
    """

    suffix = "-savedmodel"

    def convert(self, graph: Graph, destination: Path, settings: ConversionSettings) -> None:
        """Write ``graph`` to the folder ``destination``, which does not exist yet.

        On failure nothing is left of the folder.

        Raises:
            ConversionFailedError: An operator has no form in TensorFlow.
            OSError: The folder cannot be written.
        """
        constants = make_variables(graph)
        module = tf.Module()
        attach(module, constants)
        image = tf.TensorSpec([settings.batch, *graph.input_shape], tf.float32, name=INPUT_NAME)
        function = tf.function(_function(graph, constants), input_signature=[image], autograph=False)
        # Debug information is the stack trace of every operator: this program's, of no use to the reader.
        options = tf.saved_model.SaveOptions(save_debug_info=False)
        signatures = {SIGNATURE: function.get_concrete_function()}
        with _new_folder(destination):
            tf.saved_model.save(module, str(destination), signatures, options)
            _write_metadata(destination, settings.metadata)

    def open(self, artifact: Path, *, threads: int = 1) -> SavedModelEngine:
        """The artifact in TensorFlow.

        Raises:
            DependencyMissingError: TensorFlow is not installed.
            ModelRejectedError: TensorFlow does not accept the folder.
        """
        return SavedModelEngine(artifact, threads=threads)


def _function(graph: Graph, constants: Mapping[str, NodeConstants]) -> Any:
    """The Python function that computes ``graph``; its operators are named after their nodes."""

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = {INPUT_NAME: image}
        for node in graph.nodes[1:]:
            with tf.name_scope(scope(node.name)):
                inputs = [tensors[name] for name in node.inputs]
                tensors[node.name] = compute(node.op, constants[node.name], *inputs)
        return {graph.output_name: tensors[graph.output]}

    return serve


@contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """A folder that did not exist before, and does not afterwards if TensorFlow fails to fill it."""
    path.mkdir()
    try:
        yield
    except BaseException as error:
        shutil.rmtree(path)
        if isinstance(error, tf.errors.OpError):  # what TensorFlow raises for a full disk, among others
            raise OSError(f"TensorFlow cannot write {path}: {error.message}") from error
        raise


def _write_metadata(destination: Path, metadata: Mapping[str, str]) -> None:
    path = destination / METADATA_FILE
    path.parent.mkdir()
    document = {"producer": f"resnet-edge {__version__}", "metadata": dict(metadata)}
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
