"""Changes to a bundle's files as defects and accidents make them: a weight, a scale, an operator, a digest.

Weights are handed over in the graph's layout, (height, width, in, out), whatever the file's is. Everything is
found by the names that resnet-edge gives tensors and constants.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from resnet_edge import bundle as bundles
from resnet_edge.manifest import read_manifest, write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Change: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

_STORED_AS = ("", "_int8", "_int32")
"""What follows a constant's role in its name: nothing in float32, else its type."""

_FROM_TFLITE, _TO_TFLITE = (1, 2, 3, 0), (3, 0, 1, 2)
_FROM_ONNX, _TO_ONNX = (2, 3, 1, 0), (3, 2, 0, 1)
_UNMOVED = (0, 1, 2, 3)


def reseal(bundle: Path) -> None:
    """Let the manifest state the digests that the files have now, so that no digest tells of a change."""
    manifest = read_manifest(bundle)

    def digest(name: str) -> str:
        return bundles.digest(bundle / name) if name else ""

    artifacts = tuple(
        replace(
            record,
            sha256=digest(record.path),
            spec_sha256=digest(record.spec),
            integers_sha256=digest(record.integers),
        )
        for record in manifest.artifacts
    )
    held_back = manifest.held_back and replace(manifest.held_back, sha256=digest(manifest.held_back.path))
    write_manifest(bundle, replace(manifest, artifacts=artifacts, held_back=held_back))


def edit_constant(path: Path, node: str, role: str, change: Change) -> None:
    """Change a convolution's weight or bias in a ``.tflite``, ``.onnx`` or ``.integers.safetensors`` file.

    Args:
        path: The file.
        node: Name of the convolution.
        role: ``weight`` or ``bias``.
        change: From the old values to the new ones, of the same shape.
    """
    names = [f"{node}/{role}{suffix}" for suffix in _STORED_AS]
    if path.suffix == ".tflite":
        with editing_tflite(path) as model:
            _edit_in_tflite(model, names, change)
    elif path.suffix == ".onnx":
        with editing_onnx(path) as model:
            _edit_in_onnx(model, names, change)
    else:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(path)
        key = f"constant:{node}/{role}"
        tensors[key] = np.ascontiguousarray(change(tensors[key]).astype(tensors[key].dtype))
        save_file(tensors, path)


def swap_weights(path: Path, first: str, second: str) -> None:
    """Exchange the weights of two convolutions of the same shape in a ``.tflite`` file."""
    with editing_tflite(path) as model:
        ours, theirs = (tflite_tensor(model, [f"{node}/weight_int8"]) for node in (first, second))
        ours.buffer, theirs.buffer = theirs.buffer, ours.buffer


def edit_scale(path: Path, node: str, factor: float) -> None:
    """Multiply the scale of a node's output in a ``.tflite``, ``.onnx`` or ``.spec.json`` file."""
    if path.suffix == ".tflite":
        with editing_tflite(path) as model:
            tensor = tflite_tensor(model, [node])
            tensor.quantization.scale = tensor.quantization.scale * np.float32(factor)
    elif path.suffix == ".onnx":
        edit_initializer(path, f"{node}/output_scale", lambda scale: scale * np.float32(factor))
    else:
        spec = json.loads(path.read_text(encoding="utf-8"))
        tensor = spec["tensors"][node]
        tensor["scale"] = float(np.float32(tensor["scale"]) * np.float32(factor))
        path.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")


def edit_initializer(path: Path, name: str, change: Change) -> None:
    """Change one constant of an ``.onnx`` file."""
    with editing_onnx(path) as model:
        _edit_in_onnx(model, [name], change)


@contextmanager
def editing_tflite(path: Path) -> Iterator[Any]:
    """A ``.tflite`` file as LiteRT's generated objects, written back at the end of the block."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    yield model
    builder = flatbuffers.Builder(2 * len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


@contextmanager
def editing_onnx(path: Path) -> Iterator[Any]:
    """An ``.onnx`` file's message, written back at the end of the block."""
    import onnx

    model = onnx.load(path)
    yield model
    onnx.save(model, path)


def tflite_tensor(model: Any, names: list[str]) -> Any:
    """The tensor with any of these names."""
    wanted = {name.encode() for name in names}
    return next(tensor for tensor in model.subgraphs[0].tensors if tensor.name in wanted)


def tflite_operator(model: Any, node: str) -> Any:
    """The operator that computes a node."""
    graph = model.subgraphs[0]
    place = graph.tensors.index(tflite_tensor(model, [node]))
    return next(operator for operator in graph.operators if place in operator.outputs)


def _edit_in_tflite(model: Any, names: list[str], change: Change) -> None:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT8: "i1", schema.TensorType.INT32: "<i4"}
    tensor = tflite_tensor(model, names)
    buffer = model.buffers[tensor.buffer]
    stored = np.asarray(buffer.data, np.uint8).view(kinds[tensor.type]).reshape(tensor.shape)
    changed = _through(stored, change, _FROM_TFLITE, _TO_TFLITE)
    buffer.data = np.frombuffer(changed.tobytes(), np.uint8)


def _edit_in_onnx(model: Any, names: list[str], change: Change) -> None:
    from onnx import numpy_helper

    tensor = next(tensor for tensor in model.graph.initializer if tensor.name in names)
    changed = _through(numpy_helper.to_array(tensor), change, _FROM_ONNX, _TO_ONNX)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


def _through(
    stored: NDArray[Any], change: Change, there: tuple[int, ...], back: tuple[int, ...]
) -> NDArray[Any]:
    """Apply a change in the graph's layout to what a file has; only weights of convolutions have a layout."""
    if stored.ndim != len(_UNMOVED):
        there = back = _UNMOVED[: stored.ndim]
    changed = change(stored.transpose(there)).transpose(back)
    return np.ascontiguousarray(changed, dtype=stored.dtype).reshape(stored.shape)
