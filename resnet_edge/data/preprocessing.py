"""The preprocessing contract: what is done to an image before the model sees it, as plain numbers.

One value is used everywhere an image meets the model (calibration, verification, runners, the scripts for the
device), so that no two places can disagree. Geometry is torchvision's ``Resize`` and ``CenterCrop`` on Pillow
images, in integers; arithmetic is one float32 multiplication and addition a channel.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from resnet_edge.errors import DataRejectedError, UsageError
from resnet_edge.records import read_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Size: TypeAlias = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True, kw_only=True)
class _Formula:
    """The arithmetic of a contract; one mean and std stand for every channel."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: Literal["rgb", "bgr"] = "rgb"


_NAMED = {
    "raw": _Formula(scale=255.0),
    "unit": _Formula(),
    "tf": _Formula(mean=(0.5,), std=(0.5,)),
    # The mean of the Caffe models' training images, which they publish as bytes.
    "caffe": _Formula(scale=255.0, mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), order="bgr"),
    "torch": _Formula(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}

_LEAST_STD = 1e-6
"""Far from any real one, and far from where float32 overflows."""

_ALLOWED = f"{', '.join(_NAMED)}, or MEAN/STD such as 0.485,0.456,0.406/0.229,0.224,0.225"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an RGB (or grey, or RGBA) image of bytes to one model input.

    An image that has ``input_size`` already is taken as it is. Any other is scaled, bilinear with
    antialiasing, until it just covers ``resize``, and ``input_size`` is cut from its centre. Then each
    channel becomes ``scale * (pixel / 255 - mean) / std``, and the channels are put in ``order``.

    Attributes:
        name: ``raw``, ``unit``, ``tf``, ``caffe``, ``torch`` or ``custom``.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        order: Of the model's channels; images are always RGB.
        scale: Factor on the normalized value; 255 for models that count in bytes.
        mean: Of pixels between 0 and 1, one number a channel in RGB order.
        std: As ``mean``.
        resize: The box (height, width) to cover; for a square one that is the shorter side.
        input_size: The model's (height, width).

    Raises:
        ValueError: The fields contradict each other.
    """

    name: str
    channels: Literal[1, 3, 4]
    order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Size
    input_size: Size

    def __post_init__(self) -> None:
        if self.channels not in (1, 3, 4):
            raise ValueError(f"{self.channels} channels, not 1, 3 or 4")
        if self.order not in ("rgb", "bgr") or (self.bgr and self.channels != 3):
            raise ValueError(f"order {self.order!r} for {self.channels} channels")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} stds for {self.channels} channels")
        if min(self.input_size) < 1 or any(r < s for r, s in zip(self.resize, self.input_size, strict=True)):
            raise ValueError(f"{self.input_size} cannot be cut from {self.resize}")
        if not all(map(math.isfinite, (self.scale, *self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"no arithmetic with scale {self.scale}, mean {self.mean} and std {self.std}")

    @classmethod
    def parse(
        cls, text: str, channels: int, input_size: Size, *, resize: Size | None = None
    ) -> Preprocessing:
        """The contract that ``--preprocess`` names.

        Args:
            text: ``raw``, ``unit``, ``tf``, ``caffe``, ``torch``, or ``MEAN/STD``: comma-separated numbers
                for pixels between 0 and 1, in RGB order, one a channel or one for all.
            channels: Of the model's input.
            input_size: (height, width) of the model's input.
            resize: The box to cover before the crop; ``input_size`` if not given, so that nothing is cut
                from an image of the same proportions.

        Raises:
            UsageError: The text names no contract, or none for so many channels.
        """
        if channels not in (1, 3, 4):
            raise UsageError(
                "images have 1, 3 or 4 channels",
                where="--preprocess",
                found=f"a model with {channels} input channels",
                allowed="1 (grey), 3 (RGB), 4 (RGBA)",
            )
        name = text.strip().lower()
        formula = _NAMED.get(name) or _parse_formula(name)
        return cls(
            name=name if name in _NAMED else "custom",
            channels=cast("Literal[1, 3, 4]", channels),
            order=formula.order,
            scale=formula.scale,
            mean=_for_channels(formula.mean, channels, text),
            std=_for_channels(formula.std, channels, text),
            resize=resize or input_size,
            input_size=input_size,
        )

    @property
    def bgr(self) -> bool:
        """Whether the model's channels are in the order blue, green, red."""
        return self.order == "bgr"

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``(scale, offset)`` with model input = scale * pixel + offset, for pixels 0 to 255.

        Both have the shape (channels,), in the order of the *model's* channels.
        """
        mean, std = np.array(self.mean), np.array(self.std)
        scale = self.scale / (255 * std)
        offset = 0.0 - self.scale * mean / std  # not -(...), which would make -0.0 of 0
        return (scale[::-1], offset[::-1]) if self.bgr else (scale, offset)

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Model inputs (N, height, width, channels), to the bit what the scripts for the device compute.

        Args:
            images: uint8 (N, H, W, channels), RGB, of any height and width.

        Raises:
            DataRejectedError: The images are not bytes, or have another number of channels.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != self.channels:
            raise DataRejectedError(
                "these are not images that the preprocessing contract takes",
                found=f"{images.dtype} {images.shape}",
                allowed=f"uint8 (N, height, width, {self.channels})",
                next_step="give 8-bit images with the model's number of channels",
            )
        return self.normalize(images if images.shape[1:3] == self.input_size else self._fit_all(images))

    def normalize(self, pixels: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Model inputs for pixels 0..255 (N, height, width, channels), RGB, that have the model's size."""
        if self.bgr:
            pixels = pixels[..., ::-1]
        scale, offset = (numbers.astype(np.float32) for numbers in self.affine())
        inputs: NDArray[np.float32] = pixels * scale + offset
        return inputs

    def _fit_all(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        fitted = np.empty((len(images), *self.input_size, self.channels), np.uint8)
        for number, image in enumerate(images):
            fitted[number] = self.fit(image)
        return fitted

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale to cover ``resize``, cut ``input_size`` from the centre; (H, W, C) to (height, width, C).

        An image that has the model's size stays as it is.
        """
        if image.shape[:2] == self.input_size:
            return image
        # Deferred: only images of another size than the model's need Pillow.
        from PIL import Image

        picture = Image.fromarray(image.squeeze(axis=2) if self.channels == 1 else image)
        (height, width), (box_height, box_width) = self.input_size, self.resize
        # The side that decides gets exactly the box's length; the other is rounded down, as torchvision does.
        covering = (
            max(box_width, picture.width * box_height // picture.height),
            max(box_height, picture.height * box_width // picture.width),
        )
        picture = picture.resize(covering, Image.Resampling.BILINEAR)
        left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        cut = np.asarray(picture.crop((left, top, left + width, top + height)))
        return cut.reshape(height, width, self.channels)

    def describe(self) -> str:
        """One line for people."""
        channels = {1: "grey", 3: self.order.upper(), 4: "RGBA"}[self.channels]
        crop = "x".join(map(str, self.input_size))
        formula = f"(pixel / 255 - {_brief(self.mean)}) / {_brief(self.std)}"
        if self.scale != 1:
            formula = f"{self.scale:g} * {formula}"
        return (
            f"{self.name}: {channels}, scaled to cover {'x'.join(map(str, self.resize))} "
            f"(bilinear, antialiased), centre crop {crop}, {formula}"
        )

    def folded(self) -> Preprocessing:
        """What is left to do to an image when the model has the arithmetic inside: geometry only."""
        ones = (1.0,) * self.channels
        return replace(self, name="raw", order="rgb", scale=255.0, mean=(0.0,) * self.channels, std=ones)

    def to_json(self) -> dict[str, Any]:
        """The contract as a JSON object, the same for equal contracts."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
        return dict(sorted(fields.items()))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """The contract that :meth:`to_json` wrote.

        Raises:
            DataRejectedError: The object is no such contract.
        """
        try:
            contract = read_record(cls, fields)
            _check_known(fields)
        except ValueError as error:
            raise DataRejectedError(
                "this is not a preprocessing contract",
                found=f"{str(fields)[:200]} ({error})",
                allowed="what resnet-edge writes into a bundle's manifest",
                next_step="export the model again",
            ) from error
        return contract


def _check_known(fields: Mapping[str, Any]) -> None:
    """See that a contract asks for nothing that would not be done."""
    unknown = fields.keys() - Preprocessing.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")


def _brief(numbers: tuple[float, ...]) -> str:
    if len(set(numbers)) == 1:
        return f"{numbers[0]:g}"
    return f"({', '.join(f'{number:g}' for number in numbers)})"


def _parse_formula(text: str) -> _Formula:
    """``MEAN/STD`` as numbers.

    Raises:
        UsageError: The text is something else, or has numbers that cannot be meant.
    """
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in text.split("/"))
    except ValueError:
        raise _refusal("no such preprocessing", text, _ALLOWED) from None
    if not all(0 <= number <= 1 for number in mean):
        raise _refusal(
            "a mean is that of pixels between 0 and 1", text, "0 to 1: divide means of bytes by 255"
        )
    if not all(_LEAST_STD <= number <= 1 / _LEAST_STD for number in std):
        raise _refusal(
            "this standard deviation cannot be meant", text, f"{_LEAST_STD:g} to {1 / _LEAST_STD:g}"
        )
    return _Formula(mean=mean, std=std)


def _for_channels(numbers: tuple[float, ...], channels: int, text: str) -> tuple[float, ...]:
    """One number a channel.

    Raises:
        UsageError: There are neither as many as channels nor a single one.
    """
    if len(numbers) == 1:
        return numbers * channels
    if len(numbers) != channels:
        raise _refusal(
            f"this preprocessing is for {len(numbers)} channels, the model has {channels}",
            text,
            f"raw, unit, tf, or MEAN/STD with 1 or {channels} numbers each",
        )
    return numbers


def _refusal(what: str, found: str, allowed: str) -> UsageError:
    return UsageError(
        what, where="--preprocess", found=found, allowed=allowed, next_step="name the contract of the weights"
    )
