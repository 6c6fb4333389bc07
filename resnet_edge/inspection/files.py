"""Which inspector a file needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from resnet_edge.errors import ModelRejectedError
from resnet_edge.inspection.weights import gzip_size, weight_figures

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.inspection.report import FileReport

FileFormat: TypeAlias = Literal["tflite", "onnx"]

_TFLITE_START = slice(4, 8), b"TFL3"

_KNOWN_STARTS = {
    b"PK\x03\x04": "a zip archive, as .keras files are",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (.h5)",
}


def inspect_file(path: Path) -> FileReport:
    """Look into a TFLite or ONNX file.

    Raises:
        ModelRejectedError: There is no such file, it is of another kind, or it is damaged.
    """
    kind = file_format(path)
    report = _inspect(path, kind)
    return replace(report, gzip_size=gzip_size(path), weights=weight_figures(path, kind))


def _inspect(path: Path, kind: FileFormat) -> FileReport:
    # Each format's packages are imported only when a file of it is looked into.
    if kind == "tflite":
        from resnet_edge.inspection.tflite import inspect_tflite

        return inspect_tflite(path)
    from resnet_edge.inspection.onnx import inspect_onnx

    return inspect_onnx(path)


def file_format(path: Path) -> FileFormat:
    """What a file is, by its content; by its name where the content is too damaged to tell.

    Raises:
        ModelRejectedError: There is no such file, or it is of another kind.
    """
    if not path.is_file():
        raise ModelRejectedError("no such file or bundle", where=str(path))
    start = _first_bytes(path)
    place, identifier = _TFLITE_START
    if start[place] == identifier:
        return "tflite"
    kind = next((text for signature, text in _KNOWN_STARTS.items() if start.startswith(signature)), "")
    if not kind and path.suffix in (".tflite", ".onnx"):
        return "tflite" if path.suffix == ".tflite" else "onnx"
    if not kind and _is_onnx(path):
        return "onnx"
    raise ModelRejectedError(
        "cannot look into this kind of file",
        where=str(path),
        found=kind or path.suffix or "no suffix",
        allowed="a TFLite or ONNX file, or the folder of a bundle",
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise ModelRejectedError(
            "the file cannot be read", where=str(path), found=error.strerror or str(error)
        ) from error


def _is_onnx(path: Path) -> bool:
    """Whether a file that is not named so can be read as ONNX, which begins with no signature."""
    from resnet_edge.inspection.onnx_file import read_onnx

    try:
        read_onnx(path)
    except ModelRejectedError:
        return False
    return True
