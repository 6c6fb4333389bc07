"""Where the shipped images and weights are; finding them takes the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resnet_edge.errors import DependencyMissingError, UsageError

FASHION_MNIST_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""What the ten class indices stand for."""

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "_calibration_data", _PACKAGE.parent / "calibration_data")
"""In an installed wheel; in a checkout, which is also where an editable install looks."""

_WEIGHTS = {"resnet8-fashion-mnist": "fashion_mnist/resnet8.safetensors"}


@dataclass(frozen=True, kw_only=True)
class ShippedDataset:
    """A set of images as two ``.npz`` files, each with ``images`` (N, H, W, C) uint8 and ``labels`` (N,).

    Attributes:
        calibration: Training images, class-balanced in every prefix.
        test: The test images, all of them, in the source's order.
        labels: The classes' names by index.
    """

    calibration: Path
    test: Path
    labels: tuple[str, ...]


def dataset(name: str) -> ShippedDataset:
    """The shipped images of that name.

    Raises:
        UsageError: There is no such set.
        DependencyMissingError: The installation lacks its files.
    """
    if name != "fashion-mnist":
        raise UsageError("no such shipped data set", found=name, allowed="fashion-mnist")
    return ShippedDataset(
        calibration=_find("fashion_mnist/calibration.npz"),
        test=_find("fashion_mnist/test.npz"),
        labels=FASHION_MNIST_LABELS,
    )


def weights(name: str) -> Path:
    """The shipped weights of that name, ``MODEL-DATASET``, as a ``.safetensors`` file.

    Raises:
        UsageError: There are no such weights.
        DependencyMissingError: The installation lacks the file.
    """
    if name not in _WEIGHTS:
        raise UsageError("no such shipped weights", found=name, allowed=", ".join(_WEIGHTS))
    return _find(_WEIGHTS[name])


def _find(path: str) -> Path:
    candidates = [place / path for place in _PLACES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DependencyMissingError(
        "a file that comes with resnet-edge is missing",
        where=" and ".join(map(str, candidates)),
        next_step="install resnet-edge again, or run from a complete checkout",
    )
