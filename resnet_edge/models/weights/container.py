"""Weight files as named tensors that are read one at a time; nothing in a file is ever executed."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from resnet_edge.errors import DependencyMissingError, ModelRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]

_STATE_KEYS = ("state_dict", "model", "model_state_dict", "net")
"""Where checkpoints keep the weights beside epochs and optimizers."""


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """An open weight file.

    Attributes:
        shapes: Every tensor's shape, as stored, by its name in the file.
        read: Reads one tensor.
        metadata: Text that the file has beside the tensors.
    """

    shapes: Mapping[str, Shape]
    read: Callable[[str], NDArray[Any]]
    metadata: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the parsers raise on a damaged file into one error.

    Raises:
        ModelRejectedError: The file is truncated, damaged or not what its name says.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (
        SafetensorError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        OSError,
        EOFError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ModelRejectedError(
            "the weight file cannot be read: it is damaged, cut short, or not of the kind that its name says",
            where=str(path),
            found=str(error).strip().split("\n")[0][:200],
            next_step="copy or download the file again",
        ) from error


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[TensorFile]:
    """A ``.safetensors`` file, mapped into memory."""
    from safetensors import safe_open

    with reading(path):
        handle: Any = safe_open(path, "np")
    with handle:
        yield TensorFile(
            shapes={name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()},  # noqa: SIM118
            read=handle.get_tensor,
            metadata=handle.metadata() or {},
        )


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[TensorFile]:
    """An ``.npz`` file; pickled objects in it are refused."""
    with reading(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        shapes = {name: _npy_shape(archive, name) for name in names}
    with np.load(path, allow_pickle=False) as arrays:
        yield TensorFile(shapes=shapes, read=arrays.__getitem__)


def _npy_shape(archive: zipfile.ZipFile, name: str) -> Shape:
    """The shape that an array's header declares, without reading the array."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, _ = read_header(file)
        return shape


@contextlib.contextmanager
def open_torch(path: Path) -> Iterator[TensorFile]:
    """A PyTorch checkpoint, with ``weights_only=True``.

    Raises:
        DependencyMissingError: PyTorch is not installed.
        ModelRejectedError: The file holds other objects than tensors.
    """
    try:
        import torch
    except ImportError as error:
        raise DependencyMissingError(
            "reading PyTorch checkpoints takes PyTorch",
            where=str(path),
            next_step="pip install 'resnet-edge[torch]', or save the state_dict as .safetensors",
        ) from error
    with reading(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
    state = _state_dict(content, torch.Tensor)
    if not state:
        raise ModelRejectedError(
            "there is no state_dict in the checkpoint",
            where=str(path),
            found=", ".join(map(str, content))[:200] if isinstance(content, dict) else type(content).__name__,
            allowed=f"tensors by name, at the top or under {', '.join(_STATE_KEYS)}",
            next_step="save model.state_dict()",
        )
    yield TensorFile(
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        # NumPy has no bfloat16.
        read=lambda name: state[name].detach().float().numpy(),
    )


def _state_dict(content: object, tensor_type: type) -> dict[str, Any]:
    """The tensors by name, wherever the checkpoint keeps them."""
    if not isinstance(content, dict):
        return {}
    tensors = {name: value for name, value in content.items() if isinstance(value, tensor_type)}
    if tensors:
        return tensors
    nested = (content[key] for key in _STATE_KEYS if key in content)
    return next((found for value in nested if (found := _state_dict(value, tensor_type))), {})
