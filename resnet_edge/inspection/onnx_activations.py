"""In which type an .onnx file that a converter of ours wrote keeps its quantized activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from onnx import ModelProto, TensorProto

from resnet_edge.inspection.onnx_file import rejecting_damaged

if TYPE_CHECKING:
    from pathlib import Path


def activation_type(path: Path) -> Literal["uint8", "int8"]:
    """The type; it declares that of every tensor between two operators.

    Raises:
        ModelRejectedError: The file cannot be read, or is damaged.
    """
    with rejecting_damaged(path):
        declared = ModelProto.FromString(path.read_bytes()).graph.value_info
        kinds = {value.type.tensor_type.elem_type for value in declared}
    return "uint8" if TensorProto.UINT8 in kinds else "int8"
