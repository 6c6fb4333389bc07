"""A quantized graph's integers on disk, beside its spec: what files are compared with, and executed exactly.

One ``.safetensors`` file. ``constant:NAME`` is a constant of the spec. ``float:NODE:ROLE`` is a float weight
that differs from the folded graph's, because channels were equalized before the graph was quantized.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph import GraphEditor
from resnet_edge.graph.serialization import write_tensors
from resnet_edge.quantization.spec import Quantized, QuantSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph


def save_integers(quantized: Quantized, folded: Graph, path: Path) -> None:
    """Write what cannot be had from the spec and the folded graph.

    Args:
        quantized: Graph, spec and integers.
        folded: The float graph that every precision starts from; its nodes are those of ``quantized.graph``.
        path: The file.

    Raises:
        OSError: The file cannot be written.
    """
    tensors: dict[str, NDArray[np.generic]] = {
        f"constant:{name}": array for name, array in quantized.constants.items()
    }
    for node in quantized.graph.nodes:
        before = folded.by_name[node.name].op.weights()
        for role, array in node.op.weights().items():
            if array is not before[role] and not np.array_equal(array, before[role]):
                tensors[f"float:{node.name}:{role}"] = array
    write_tensors(tensors, path)


def load_spec(path: Path) -> QuantSpec:
    """The spec that a bundle holds.

    Raises:
        ModelRejectedError: It is missing, damaged, or of a newer schema.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRejectedError(
            "the quantization spec cannot be read",
            where=path.name,
            found=str(error),
            next_step="quantize again",
        ) from error
    return QuantSpec.from_json(values)


def load_quantized(spec_file: Path, integers_file: Path, folded: Graph) -> Quantized:
    """The quantized graph that a bundle holds.

    Raises:
        ModelRejectedError: A file is missing, damaged, or does not fit the graph.
    """
    try:
        spec = load_spec(spec_file)
        tensors = load_file(integers_file)
        return Quantized(graph=_graph(folded, tensors), spec=spec, constants=_constants(spec, tensors))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelRejectedError(
            "the integers of a quantized model cannot be read",
            where=f"{spec_file.name}, {integers_file.name}",
            found=str(error),
            next_step="quantize again",
        ) from error


def _constants(spec: QuantSpec, tensors: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {name: tensors[f"constant:{name}"] for name in spec.constants}


def _graph(folded: Graph, tensors: dict[str, NDArray[np.generic]]) -> Graph:
    """The graph that was quantized: the folded one with the weights that were equalized."""
    editor = GraphEditor(folded)
    for key, array in tensors.items():
        kind, _, rest = key.partition(":")
        if kind == "float":
            name, _, role = rest.rpartition(":")
            editor.set_op(name, replace(editor.node(name).op, **{role: array}))  # type: ignore[type-var]
    return editor.graph()
