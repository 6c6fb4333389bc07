"""Images for calibration and verification, as model inputs, never more in memory than a batch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_edge.data import shipped
from resnet_edge.data.image_folder import ImageFolder
from resnet_edge.data.npz_arrays import NpzArray
from resnet_edge.errors import DataRejectedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from resnet_edge.data.preprocessing import Preprocessing

Image: TypeAlias = NDArray[Any]
"""(height, width, channels): uint8 pixels, or floats that are model inputs already."""

_MODEL_INPUT_SLACK = 1e-3
"""Part of the contract's range that a model input may lie outside: rounding, also that of float16."""


class Images(Protocol):
    """Stored images by position."""

    def __len__(self) -> int: ...

    def images(self, start: int, stop: int) -> Iterator[Image]:
        """The images ``start`` to ``stop``, one by one."""
        ...

    def contents(self, start: int, stop: int) -> Iterator[bytes]:
        """What identifies each, without decoding it."""
        ...

    def pick(self, positions: NDArray[np.int64]) -> Images:
        """Those at the given positions, which ascend."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class NpzImages:
    """Rows of the array ``images`` of a ``.npz`` file.

    Attributes:
        array: The array.
        positions: Which of its rows, ascending.
    """

    array: NpzArray
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def images(self, start: int, stop: int) -> Iterator[Image]:
        """The images ``start`` to ``stop``; rows between them are read over, since the file may be packed."""
        wanted = self.positions[start:stop]
        if not len(wanted):
            return
        first = int(wanted[0])
        chosen = set(wanted.tolist())
        for row, image in enumerate(self.array.rows(first, int(wanted[-1]) + 1), first):
            if row in chosen:
                yield image

    def contents(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of the images."""
        return (f"{row.dtype}{row.shape}".encode() + row.tobytes() for row in self.images(start, stop))

    def pick(self, positions: NDArray[np.int64]) -> NpzImages:
        """Those at the given positions."""
        return replace(self, positions=self.positions[positions])


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayImages:
    """Images in memory, (N, height, width, channels)."""

    array: NDArray[Any]

    def __len__(self) -> int:
        return len(self.array)

    def images(self, start: int, stop: int) -> Iterator[Image]:
        """The images ``start`` to ``stop``."""
        return iter(self.array[start:stop])

    def contents(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of the images."""
        return (image.tobytes() for image in self.array[start:stop])

    def pick(self, positions: NDArray[np.int64]) -> ArrayImages:
        """Those at the given positions."""
        return ArrayImages(array=self.array[positions])


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images with the contract under which they become model inputs.

    Attributes:
        name: As the user gave it.
        images: Where they are.
        preprocessing: Applied to uint8 images; float images have it behind them.
        labels: Class indices, int64 (N,), if there are any.
        notes: What a user should know about the images: files left out, conversions.
    """

    name: str
    images: Images
    preprocessing: Preprocessing
    labels: NDArray[np.int64] | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self, start: int = 0, stop: int | None = None, size: int = 32
    ) -> Iterator[NDArray[np.float32]]:
        """Model inputs (n, height, width, channels) of the images ``start`` to ``stop``, n at most ``size``.

        Raises:
            DataRejectedError: An image cannot be used; says which.
        """
        position, rest = start, self.images.images(start, self._end(stop))
        while block := list(islice(rest, size)):
            yield self._inputs(block, position)
            position += len(block)

    def fitted(self, start: int = 0, stop: int | None = None) -> Iterator[Image]:
        """The images before normalization, one by one: pixels in RGB at the model's size, floats as given."""
        for image in self.images.images(start, self._end(stop)):
            yield self.preprocessing.fit(image) if image.dtype == np.uint8 else image

    def digest(self, start: int = 0, stop: int | None = None) -> str:
        """SHA-256 of the images ``start`` to ``stop`` and the contract: equal for equal model inputs."""
        total = hashlib.sha256(json.dumps(self.preprocessing.to_json()).encode())
        for content in self.images.contents(start, self._end(stop)):
            total.update(hashlib.sha256(content).digest())
        return total.hexdigest()

    def image_hashes(self, start: int = 0, stop: int | None = None) -> tuple[str, ...]:
        """A hash of the pixels of each image, the same in whatever file and data set the image comes."""
        return tuple(
            hashlib.blake2b(
                f"{image.dtype}{image.shape}".encode() + image.tobytes(), digest_size=16
            ).hexdigest()
            for image in self.images.images(start, self._end(stop))
        )

    def pick(self, positions: NDArray[np.int64]) -> Dataset:
        """The images at the given positions, which ascend, with their labels."""
        labels = None if self.labels is None else self.labels[positions]
        return replace(self, images=self.images.pick(positions), labels=labels)

    def check_size(self, wanted: int) -> None:
        """See that there are enough images.

        Raises:
            DataRejectedError: There are fewer.
        """
        if len(self) < wanted:
            raise DataRejectedError(
                "too few images",
                where=self.name,
                found=str(len(self)),
                allowed=f"{wanted} or more",
                next_step="give more images, or ask for fewer with --samples",
            )

    def class_indices(self, classes: int) -> NDArray[np.int64]:
        """The labels of a model with so many classes.

        Raises:
            DataRejectedError: There are none, or one is no class of the model.
        """
        if self.labels is None:
            raise DataRejectedError(
                "these images have no labels",
                where=self.name,
                allowed="an array 'labels' (N,) in the .npz, or one sub-folder a class",
                next_step="add the labels",
            )
        if len(self.labels) and int(self.labels.max()) >= classes:
            raise DataRejectedError(
                "a label is no class of the model",
                where=f"{self.name}, image {int(self.labels.argmax())}",
                found=str(int(self.labels.max())),
                allowed=f"0 to {classes - 1}",
                next_step="check that the images belong to this model",
            )
        return self.labels

    def _end(self, stop: int | None) -> int:
        return len(self) if stop is None else min(stop, len(self))

    def _inputs(self, block: Sequence[Image], position: int) -> NDArray[np.float32]:
        if block[0].dtype != np.uint8:
            inputs = np.stack(block).astype(np.float32)
            _check_model_inputs(inputs, self.preprocessing, self.name, position)
            return inputs
        if len({image.shape for image in block}) == 1:
            return self.preprocessing.apply(np.stack(block))
        return np.concatenate([self.preprocessing.apply(image[None]) for image in block])


def open_dataset(
    text: str,
    preprocessing: Preprocessing,
    *,
    class_names: Sequence[str] | None = None,
    split: Literal["calibration", "test"] = "calibration",
) -> Dataset:
    """The images that ``--calibration`` or ``--data`` names.

    Args:
        text: ``fashion-mnist``, a ``.npz`` file with ``images`` (N, height, width, channels), uint8 or float,
            and perhaps ``labels`` (N,), or a folder of image files or of one sub-folder a class.
        preprocessing: The contract of the model that the images are for.
        class_names: The model's classes in order, for folders.
        split: Which of the shipped images.

    Raises:
        UsageError: The text names nothing that could be opened.
        DataRejectedError: What it names cannot be used with this contract.
    """
    if text == "fashion-mnist":
        found = shipped.dataset(text)
        return _from_npz(found.calibration if split == "calibration" else found.test, text, preprocessing)
    path = Path(text)
    if path.is_dir():
        folder = ImageFolder.scan(path, preprocessing.channels, class_names)
        return Dataset(
            name=text,
            images=folder,
            preprocessing=preprocessing,
            labels=folder.labels,
            notes=folder.notes,
        )
    if not path.is_file() or path.suffix.lower() != ".npz":
        raise UsageError(
            "there are no images of that name",
            where=text,
            found=f"a file named *{path.suffix}" if path.exists() else "no such file or folder",
            allowed="fashion-mnist, a .npz file with images, or a folder with one sub-folder a class",
            next_step="check the path",
        )
    return _from_npz(path, text, preprocessing)


def _from_npz(path: Path, name: str, preprocessing: Preprocessing) -> Dataset:
    images = NpzArray.find(path, "images")
    if images is None:
        raise DataRejectedError(
            "the file has no array 'images'",
            where=name,
            allowed="images (N, height, width, channels), and perhaps labels (N,)",
            next_step="save it with numpy.savez(file, images=..., labels=...)",
        )
    _check_images(images, name, preprocessing)
    return Dataset(
        name=name,
        images=NpzImages(array=images, positions=np.arange(images.shape[0])),
        preprocessing=preprocessing,
        labels=_labels(NpzArray.find(path, "labels"), images.shape[0], name),
    )


def _check_images(array: NpzArray, name: str, preprocessing: Preprocessing) -> None:
    """See that the array's type and shape are those of images for this contract.

    Raises:
        DataRejectedError: They are not.
    """
    channels, (height, width) = preprocessing.channels, preprocessing.input_size
    is_float = array.dtype.kind == "f"
    fits = len(array.shape) == 4 and array.shape[3] == channels and 0 not in array.shape
    if is_float:
        fits = fits and array.shape[1:3] == (height, width)
    if fits and (is_float or array.dtype == np.uint8):
        return
    channels_first = len(array.shape) == 4 and array.shape[1] == channels
    raise DataRejectedError(
        "these arrays are no images for the model",
        where=name,
        found=f"{array.dtype} {array.shape}",
        allowed=f"uint8 (N, height, width, {channels}), or float (N, {height}, {width}, {channels})",
        next_step="put the channels last: images.transpose(0, 2, 3, 1)"
        if channels_first
        else "give 8-bit images, or floats that are model inputs already",
    )


def _labels(array: NpzArray | None, images: int, name: str) -> NDArray[np.int64] | None:
    """The labels as stored.

    Raises:
        DataRejectedError: They are not one class index an image.
    """
    if array is None:
        return None
    if array.dtype.kind not in "iu" or array.shape != (images,):
        raise _no_labels(name, f"{array.dtype} {array.shape}", images)
    labels = _integers(array.rows(0, images))
    if min(labels, default=0) < 0:
        raise _no_labels(name, f"label {min(labels)}", images)
    return np.array(labels, np.int64)


def _integers(rows: Iterable[NDArray[Any]]) -> list[int]:
    return [int(row) for row in rows]


def _no_labels(name: str, found: str, images: int) -> DataRejectedError:
    return DataRejectedError(
        "the labels are not one class index an image",
        where=name,
        found=found,
        allowed=f"integers of 0 or more, ({images},)",
        next_step="save the class indices as integers",
    )


def _check_model_inputs(
    inputs: NDArray[np.float32], preprocessing: Preprocessing, name: str, position: int
) -> None:
    """See that floats can have come out of the contract.

    Raises:
        DataRejectedError: Some are not finite, or outside the range that the contract maps pixels to.
    """
    by_image = inputs.reshape(len(inputs), -1)
    finite = np.isfinite(by_image).all(axis=1)
    if not finite.all():
        raise DataRejectedError(
            "an image holds NaN or infinity",
            where=f"{name}, image {position + int(np.argmin(finite))}",
            next_step="repair or remove it",
        )
    scale, offset = preprocessing.affine()
    ends = np.sort([offset, offset + 255 * scale], axis=0)
    slack = _MODEL_INPUT_SLACK * (ends[1] - ends[0])
    outside = ((inputs < ends[0] - slack) | (inputs > ends[1] + slack)).reshape(len(inputs), -1).any(axis=1)
    if outside.any():
        image = int(np.argmax(outside))
        raise DataRejectedError(
            "a float image is outside the range of model inputs",
            where=f"{name}, image {position + image}",
            found=f"{by_image[image].min():g} to {by_image[image].max():g}",
            allowed=f"{ends[0].min():g} to {ends[1].max():g}, by the contract {preprocessing.describe()}",
            next_step="give 8-bit images, or apply the contract to the floats before",
        )
