"""Which inspector a file needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.inspection.report import FileReport


def inspect_file(path: Path) -> FileReport:
    """Look into a ``.tflite`` or ``.onnx`` file.

    Raises:
        ModelRejectedError: There is no such file, it is of another kind, or it is damaged.
    """
    # Each format's packages are imported only when a file of it is looked into.
    if not path.is_file():
        raise ModelRejectedError("no such file or bundle", where=str(path))
    if path.suffix == ".tflite":
        from resnet_edge.inspection.tflite import inspect_tflite

        return inspect_tflite(path)
    if path.suffix == ".onnx":
        from resnet_edge.inspection.onnx import inspect_onnx

        return inspect_onnx(path)
    raise ModelRejectedError(
        "cannot look into this kind of file",
        where=str(path),
        found=path.suffix or "no suffix",
        allowed=".tflite, .onnx, or the folder of a bundle",
    )
