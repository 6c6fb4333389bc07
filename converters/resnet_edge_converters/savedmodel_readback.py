"""The scales and integers of a SavedModel, read from its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError
from resnet_edge.quantization.readback import FileContent, StoredConstant, StoredTensor
from resnet_edge.tensorflow_import import tf
from resnet_edge_converters.savedmodel_constants import (
    ACTIVATION,
    SCALE,
    checkpoint_keys,
    stored_role,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from resnet_edge.quantization.spec import Quantized

    Arrays: TypeAlias = Mapping[tuple[str, str], NDArray[Any]]


def read_content(path: Path, quantized: Quantized) -> FileContent:
    """What a SavedModel holds of the tensors and constants that a spec names; what it lacks is left out.

    Raises:
        ModelRejectedError: The folder has no readable checkpoint, or a zero point in it is no integer.
    """
    arrays = _read_arrays(path, quantized)
    tensors = {
        node: _stored_tensor(path, node, arrays[node, ACTIVATION])
        for node in quantized.spec.tensors
        if (node, ACTIVATION) in arrays
    }
    constants = {name: _stored_constant(arrays, quantized, name) for name in quantized.spec.constants}
    return FileContent(
        tensors=tensors,
        constants={name: constant for name, constant in constants.items() if constant is not None},
    )


def _read_arrays(path: Path, quantized: Quantized) -> Arrays:
    """The arrays that the checkpoint holds, by node name and role."""
    try:
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        found = reader.get_variable_to_shape_map()
        keys = {place: key for place, key in checkpoint_keys(quantized).items() if key in found}
        return {place: reader.get_tensor(key) for place, key in keys.items()}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ModelRejectedError(
            "the SavedModel's variables cannot be read",
            where=str(path),
            found=str(error),
            next_step="export the model again",
        ) from error


def _stored_tensor(path: Path, node: str, activation: NDArray[Any]) -> StoredTensor:
    """A node's scale and zero point."""
    if activation.shape != (2,) or not float(activation[1]).is_integer():
        raise ModelRejectedError(
            "the SavedModel has no scale and zero point where they should be",
            where=f"variable {node}/{ACTIVATION} in {path}",
            found=str(activation.tolist()),
            allowed="a number above zero and an integer",
            next_step="export the model again",
        )
    return StoredTensor(scale=float(activation[0]), zero_point=int(activation[1]))


def _stored_constant(arrays: Arrays, quantized: Quantized, name: str) -> StoredConstant | None:
    """A constant with its scales; a bias has those of the products that it is added to."""
    node, role = name.rsplit("/", 1)
    quant = quantized.spec.constants[name]
    array = arrays.get((node, stored_role(role, quant)))
    if array is None:
        return None
    if quant.dtype == "float16":
        return StoredConstant(array=array, scales=())
    scales = arrays.get((node, SCALE))
    if scales is not None and quant.dtype != "int8":
        source = quantized.graph.by_name[node].inputs[0]
        activation = arrays.get((source, ACTIVATION))
        scales = None if activation is None else activation[0] * scales
    return None if scales is None else StoredConstant(array=array, scales=tuple(scales.tolist()))
