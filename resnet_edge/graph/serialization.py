"""A graph as one ``.safetensors`` file: weights as tensors, everything else as JSON in the header.

A bundle keeps the imported graph this way, so that quantizing it needs neither Keras nor the user's code.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph import operators
from resnet_edge.graph.geometry import Padding, ShapeError
from resnet_edge.graph.graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph.operators import Operator, Weight

SCHEMA = "resnet-edge graph 1"

_OPERATORS: dict[str, type[Operator]] = {
    name: kind
    for name, kind in vars(operators).items()
    if isinstance(kind, type) and issubclass(kind, operators.Operator) and dataclasses.is_dataclass(kind)
}


def save_graph(graph: Graph, path: Path) -> None:
    """Write a graph.

    Raises:
        OSError: The file cannot be written.
    """
    nodes = [
        {
            "name": node.name,
            "operator": type(node.op).__name__,
            "inputs": node.inputs,
            "source": node.source,
            "attributes": _attributes(node.op),
        }
        for node in graph.nodes
    ]
    structure = {"schema": SCHEMA, "name": graph.name, "output": graph.output, "nodes": nodes}
    tensors = {
        f"{node.name}:{role}": array for node in graph.nodes for role, array in node.op.weights().items()
    }
    # One entry: the library writes several in any order, and the same graph is to give the same bytes.
    write_tensors(tensors, path, metadata={"graph": json.dumps(structure)})


def write_tensors(
    tensors: Mapping[str, NDArray[np.generic]], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a ``.safetensors`` file that others may read, as they may what else is in its folder.

    Raises:
        OSError: The file cannot be written.
    """
    path.touch()  # the library makes its file readable for its owner only
    mode = path.stat().st_mode
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata)
        path.chmod(mode)
    except SafetensorError as error:  # its text is all that is left of the operating system's error
        raise OSError(0, str(error), str(path)) from error


def _attributes(op: Operator) -> dict[str, Any]:
    """The operator's settings as JSON values; its arrays are kept apart."""
    values = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}  # type: ignore[arg-type]
    return {
        name: dataclasses.asdict(value) if isinstance(value, Padding) else value
        for name, value in values.items()
        if not isinstance(value, np.ndarray)
    }


def load_graph(path: Path) -> Graph:
    """Read a graph that :func:`save_graph` wrote.

    Raises:
        ModelRejectedError: The file is missing, damaged, or of another kind.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            structure = json.loads((file.metadata() or {})["graph"])
            if structure["schema"] != SCHEMA:
                raise ModelRejectedError(
                    "not a graph of this version of resnet-edge",
                    where=str(path),
                    found=str(structure["schema"]),
                    allowed=SCHEMA,
                    next_step="export the model again",
                )
            nodes = tuple(_node(fields, file) for fields in structure["nodes"])
            return Graph(name=structure["name"], nodes=nodes, output=structure["output"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ShapeError) as error:
        raise ModelRejectedError(
            "cannot read the bundle's graph",
            where=str(path),
            found=str(error),
            next_step="export the model again",
        ) from error


def _node(fields: dict[str, Any], file: Any) -> Node:
    kind = _OPERATORS[fields["operator"]]
    types = get_type_hints(kind, vars(operators))
    arrays: dict[str, Weight] = {
        name: file.get_tensor(f"{fields['name']}:{name}")
        for name in types
        if name not in fields["attributes"] and name in {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    }
    attributes = {name: _value(value, types[name]) for name, value in fields["attributes"].items()}
    op = kind(**attributes, **arrays)
    return Node(name=fields["name"], op=op, inputs=tuple(fields["inputs"]), source=fields["source"])


def _value(value: Any, kind: Any) -> Any:
    """A JSON value as the field's own type."""
    if kind is Padding:
        return Padding(**value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    return tuple(value) if isinstance(value, list) else value
