"""From the tensors of a file to the variables of our models: ``layer/role``, in Keras' layouts.

The registry models' layers are named as in the definition that they follow, so the layer's name needs no
mapping; what differs is the role's name and the layout.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnet_edge.models.conventions import CONVENTIONS, Naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from resnet_edge.models.weights.container import Shape


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of the file, as the model wants it.

    Attributes:
        source: Its name in the file.
        shape: In the model's layout.
        order: The permutation that gives this layout; empty where it has it already.
    """

    source: str
    shape: Shape
    order: tuple[int, ...] = ()

    def arrange(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The stored array in the model's layout."""
        return (stored.transpose(self.order) if self.order else stored).reshape(self.shape)


_TORCH_SUFFIXES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")
"""What DataParallel and torch.compile put before every name."""

_COUNTED = re.compile(r"(conv2d|batch_normalization|dense)(?:_(\d+))?")

_CLASSIFIERS = frozenset(conventions.names.classifier for conventions in CONVENTIONS.values())


def recognize(shapes: Mapping[str, Shape]) -> Naming:
    """How these tensors are named."""
    if any(name.rpartition(".")[2] in _TORCH_SUFFIXES for name in shapes):
        return Naming.PYTORCH
    layers = [name.split("/")[0] for name in shapes]
    if layers and all(_COUNTED.fullmatch(layer) for layer in layers):
        return Naming.KERAS_ORDER
    return Naming.KERAS


def canonical(
    shapes: Mapping[str, Shape], naming: Naming, layers: Iterable[tuple[str, str]]
) -> dict[str, Tensor]:
    """The file's tensors under the names that our models' variables have.

    Args:
        shapes: Shapes by name, as stored.
        naming: How the names are meant.
        layers: (Keras' counter, name) of the model's layers in order: ``("conv2d", "layer1.0.conv1")``.
    """
    if naming is Naming.PYTORCH:
        return _from_pytorch(shapes)
    tensors = {name.removesuffix(":0"): Tensor(source=name, shape=shape) for name, shape in shapes.items()}
    return _by_order(tensors, layers) if naming is Naming.KERAS_ORDER else tensors


def _from_pytorch(shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    norms = {name.rpartition(".")[0] for name in shapes if name.endswith(".running_mean")}
    tensors = {}
    for name, shape in shapes.items():
        layer, _, suffix = name.rpartition(".")
        if suffix == "num_batches_tracked":
            continue
        role = _NORM_ROLES.get(suffix, suffix) if layer in norms else _ROLES.get(suffix, suffix)
        layer = _WRAPPERS.sub("", layer)
        tensors[f"{layer}/{role}"] = _from_torch_layout(name, shape, layer)
    return tensors


_ROLES = {"weight": "kernel"}
_NORM_ROLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def _from_torch_layout(name: str, shape: Shape, layer: str) -> Tensor:
    """OIHW to HWIO, (out, in) to (in, out); a classifier written as a 1x1 convolution becomes a matrix."""
    if len(shape) == 4:
        out, channels, height, width = shape
        if layer in _CLASSIFIERS and height == width == 1:
            return Tensor(source=name, shape=(channels, out), order=(2, 3, 1, 0))
        return Tensor(source=name, shape=(height, width, channels, out), order=(2, 3, 1, 0))
    if len(shape) == 2:
        return Tensor(source=name, shape=shape[::-1], order=(1, 0))
    return Tensor(source=name, shape=shape)


def _by_order(tensors: Mapping[str, Tensor], layers: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """The k-th convolution of the file is the k-th of the model, and so for the other kinds of layers."""
    ours = defaultdict(list)
    for kind, layer in layers:
        ours[kind].append(layer)
    counted = defaultdict(list)
    for layer in {name.split("/")[0] for name in tensors}:
        kind, number = _COUNTED.fullmatch(layer).groups()  # type: ignore[union-attr] # recognize() saw to it
        counted[kind].append((int(number or 0), layer))
    names = {
        theirs: mine
        for kind, numbered in counted.items()
        for (_, theirs), mine in zip(sorted(numbered), ours[kind], strict=False)
    }
    return {
        "/".join([names.get(layer, layer), role]): tensor
        for (layer, role), tensor in ((name.split("/"), tensor) for name, tensor in tensors.items())
    }
