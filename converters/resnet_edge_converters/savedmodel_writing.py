"""Writes SavedModel folders: the graph traced once as one ``tf.function`` over named variables.

A quantized graph is simulated: the variables are the integers that every format holds, and are dequantized
when the function runs; every tensor that the spec quantizes is rounded to the numbers that its integers stand
for.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resnet_edge import __version__
from resnet_edge.engines.savedmodel import METADATA_FILE, SIGNATURE
from resnet_edge.graph import INPUT_NAME
from resnet_edge.tensorflow_import import tf
from resnet_edge_converters.savedmodel_activations import OFFSETS, check_border, read_activation, simulated
from resnet_edge_converters.savedmodel_constants import NodeVariables, attach, make_variables, scope
from resnet_edge_converters.savedmodel_operators import compute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from resnet_edge.converters import ConversionSettings
    from resnet_edge.quantization.spec import Quantized


def write_savedmodel(quantized: Quantized, destination: Path, settings: ConversionSettings) -> None:
    """Write a graph, quantized or not, to the folder ``destination``, which does not exist yet.

    On failure nothing is left of the folder.

    Raises:
        ConversionFailedError: An operator has no form in TensorFlow, or the signature cannot have the element
            type that the spec asks for.
        OSError: The folder cannot be written.
    """
    check_border(quantized)
    variables = make_variables(quantized)
    module = tf.Module()
    attach(module, variables)
    shape = [settings.batch, *quantized.graph.input_shape]
    image = tf.TensorSpec(shape, tf.as_dtype(quantized.spec.io), name=INPUT_NAME)
    function = tf.function(_function(quantized, variables), input_signature=[image], autograph=False)
    # Debug information is the stack trace of every operator: this program's, of no use to the reader.
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    signatures = {SIGNATURE: function.get_concrete_function()}
    with _new_folder(destination):
        tf.saved_model.save(module, str(destination), signatures, options)
        _write_metadata(destination, settings.metadata, _border(quantized))


def _function(quantized: Quantized, variables: Mapping[str, NodeVariables]) -> Any:
    """The Python function that computes the graph; its operators are named after their nodes."""
    graph, spec, io = quantized.graph, quantized.spec, quantized.spec.io

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        # Each is read once: the time that TensorFlow takes is in proportion to the number of operators.
        first = read_activation(variables[INPUT_NAME], spec)
        given = first.real(image, OFFSETS[io]) if first and io != "float32" else simulated(first, image)
        activations, tensors = {INPUT_NAME: first}, {INPUT_NAME: given}
        for node in graph.nodes[1:]:
            stored, source = variables[node.name], activations[node.inputs[0]]
            inputs = [tensors[name] for name in node.inputs]
            # Weights are dequantized when the input is there: else all of them would be, right at the start.
            after = inputs if stored.quants else []
            with tf.name_scope(scope(node.name)), tf.control_dependencies(after):
                activations[node.name] = read_activation(stored, spec)
                constants = stored.read(source and source.scale)
                output = compute(node.op, constants, *inputs)
                tensors[node.name] = simulated(activations[node.name], output)
        result, last = tensors[graph.output], activations[graph.output]
        if last and io != "float32":
            result = last.integers(result, io, OFFSETS[io])
        return {graph.output_name: result}

    return serve


def _border(quantized: Quantized) -> dict[str, object]:
    """What the integers of the signature stand for, for whoever calls it; nothing where it takes float32."""
    graph, spec = quantized.graph, quantized.spec
    if spec.io == "float32":
        return {}
    ends = {"input": spec.tensors[INPUT_NAME], "output": spec.tensors[graph.output]}
    return {
        end: {"dtype": spec.io, "scale": quant.scale, "zero_point": quant.zero_point + OFFSETS[spec.io]}
        for end, quant in ends.items()
    }


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


def _write_metadata(destination: Path, metadata: Mapping[str, str], border: Mapping[str, object]) -> None:
    path = destination / METADATA_FILE
    path.parent.mkdir()
    document = {"producer": f"resnet-edge {__version__}", "metadata": dict(metadata), **border}
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
