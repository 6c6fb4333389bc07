"""Keras' weight files as named tensors: ``layer/role`` (``conv1/kernel``), whatever Keras wrote them.

Three layouts are met. Keras 2 and Keras 3's ``.h5`` list the layers in an attribute ``layer_names`` and each
layer's tensors in ``weight_names``. Keras 3's ``.weights.h5`` (alone or in a ``.keras`` archive) has numbered
``vars`` below a path made of class names and counters; newer versions write the layer's name beside them.
Without that name the tensors keep Keras' counters (``conv2d_5/kernel``), which tell their order.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from typing import TYPE_CHECKING, Any

from resnet_edge.errors import ModelRejectedError
from resnet_edge.models.safety import check_hdf5, check_keras_archive
from resnet_edge.models.safety.archive import weights_region
from resnet_edge.models.weights.container import TensorFile, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import h5py

_KERNEL_ROLES = ("kernel", "bias")
_NORM_ROLES = ("gamma", "beta", "moving_mean", "moving_variance")


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[TensorFile]:
    """A ``.h5`` or ``.weights.h5`` file.

    Raises:
        UnsafeFileError: It holds links or sizes that must not reach the HDF5 library's readers.
        ModelRejectedError: It holds no Keras weights.
    """
    import h5py

    check_hdf5(path, weights_only=True)
    with reading(path):
        file = h5py.File(path, "r")
    with file:
        yield _tensor_file(path, file)


@contextlib.contextmanager
def open_keras_archive(path: Path) -> Iterator[TensorFile]:
    """The weights of a ``.keras`` file; the model in it is not built.

    Raises:
        UnsafeFileError: It holds links, paths or sizes that must not reach a reader.
        ModelRejectedError: It holds no Keras weights.
    """
    import h5py

    check_keras_archive(path, weights_only=True)
    with contextlib.ExitStack() as stack:
        with reading(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            region = stack.enter_context(weights_region(archive))
            file = stack.enter_context(h5py.File(region.stream(), "r"))
        yield _tensor_file(path, file)


def _tensor_file(path: Path, file: h5py.File) -> TensorFile:
    with reading(path):
        root = file.get("model_weights", file)
        datasets = _by_attribute(root) if "layer_names" in root.attrs else _by_path(root)
    if not datasets:
        raise ModelRejectedError(
            "the HDF5 file holds no Keras weights",
            where=str(path),
            found=", ".join(file)[:200] or "nothing",
            next_step="save them by Keras: model.save(...) or model.save_weights(...)",
        )
    return TensorFile(
        shapes={name: tuple(dataset.shape) for name, dataset in datasets.items()},
        read=lambda name: datasets[name][()],
    )


def _by_attribute(root: h5py.Group) -> dict[str, Any]:
    """``layer_names`` and ``weight_names``; a weight's own last two parts name it (``conv1/kernel:0``)."""
    datasets = {}
    for layer in _texts(root.attrs["layer_names"]):
        for weight in _texts(root[layer].attrs.get("weight_names", ())):
            parts = weight.split("/")
            owner = parts[-2] if len(parts) > 1 else layer
            datasets[f"{owner}/{parts[-1].split(':')[0]}"] = root[layer][weight]
    return datasets


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _by_path(root: h5py.Group) -> dict[str, Any]:
    """``layers/<class and counter>/vars/<number>``, below however many nested models."""
    datasets: dict[str, Any] = {}

    def visit(path: str, item: Any) -> None:
        if re.search(r"(^|/)(layers|_layer_checkpoint_dependencies)/.*vars$", path):
            name = _texts([item.attrs["name"]])[0] if "name" in item.attrs else path.split("/")[-2]
            datasets.update({f"{name}/{role}": dataset for role, dataset in _roles(item).items()})

    root.visititems(visit)
    return datasets


def _roles(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What each numbered variable is: Keras numbers them in the order in which the layer makes them."""
    numbers = sorted(variables, key=int)
    roles = {1: _KERNEL_ROLES[:1], 2: _KERNEL_ROLES, 4: _NORM_ROLES}.get(len(numbers), tuple(numbers))
    return {role: variables[number] for role, number in zip(roles, numbers, strict=True)}
