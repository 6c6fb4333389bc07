"""The check of an HDF5 file's structure, without reading a single weight.

HDF5 is a file system in a file: a name in it can lead to another file (external links, external storage,
virtual datasets), to any other name (soft links), through a filter that is loaded as a plug-in, and a
dataset's declared shape is independent of what is stored. A file of weights needs none of this.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, BinaryIO

import h5py
from h5py import h5d, h5g, h5l, h5o, h5z

from resnet_edge.errors import ModelRejectedError, UnsafeFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file."""

_MOST_OBJECTS = 200_000
"""ResNet-152 has some 1,600 groups and datasets; optimizers triple that."""

_LARGEST_RATIO = 100
"""Declared size over stored size. Trained weights compress to half at best, pruned ones to a twentieth."""

_UNSUSPICIOUS_BYTES = 1 << 20
"""Below this a dataset may be stored as nothing at all, as HDF5 does with zeros."""

_UNSUSPICIOUS_TOTAL = 64 << 20

_FILTERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF})
"""Filters that come with h5py; any other would be looked for among the machine's plug-ins."""

_NUMERIC_KINDS = "biufV"
"""NumPy's kinds of numbers; V is how HDF5 keeps bfloat16."""


@contextlib.contextmanager
def open_hdf5(source: Path | BinaryIO, where: str) -> Iterator[h5py.File]:
    """Open a file; whatever HDF5 stumbles over in it, here or later in the block, is one clear error.

    Raises:
        ModelRejectedError: The file is damaged.
    """
    try:
        with h5py.File(source, "r") as file:
            yield file
    # What h5py raises for damaged files, by trial: it depends on the byte that is damaged.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise ModelRejectedError(
            "the HDF5 file cannot be read",
            where=where,
            found=str(error).strip("'\""),
            next_step="it is truncated or damaged: get it again from its source or save the model again",
        ) from error


def check_structure(file: h5py.File, *, size: int, where: str) -> int:
    """Visit every object over hard links only, and refuse what no file of weights has.

    Args:
        file: The open file.
        size: Its length in bytes.
        where: The file (and its part) for error messages.

    Returns:
        How many numbers its datasets hold.

    Raises:
        UnsafeFileError: A link or a dataset reaches outside the file or declares more than the file can hold.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise _unsafe("an unusual layout", where, "/", "addresses or lengths that are not of 8 bytes")
    elements = declared = 0
    seen: set[int] = set()
    groups: list[tuple[h5g.GroupID, str]] = [(file.id, "")]
    while groups:
        group, path = groups.pop()
        for name in group:
            place = f"{path}/{name.decode('utf-8', 'replace')}"
            link = group.links.get_info(name)
            if link.type != h5l.TYPE_HARD:
                raise _unsafe("a link", where, place, _link_target(group, name, link.type))
            if link.u in seen:
                continue
            seen.add(link.u)
            if len(seen) > _MOST_OBJECTS:
                raise _unsafe("more objects than a model has", where, place, f"over {_MOST_OBJECTS:,}")
            found = h5o.open(group, name)
            if isinstance(found, h5g.GroupID):
                groups.append((found, place))
            elif isinstance(found, h5d.DatasetID):
                count, dataset_bytes = _check_dataset(found, size, where, place)
                elements, declared = elements + count, declared + dataset_bytes
            else:
                raise _unsafe(
                    "an object that is neither group nor dataset", where, place, type(found).__name__
                )
    if declared > max(_UNSUSPICIOUS_TOTAL, _LARGEST_RATIO * size):
        raise _unsafe("datasets far larger than the file", where, "/", f"{declared:,} bytes in {size:,}")
    return elements


def _check_dataset(dataset: h5d.DatasetID, size: int, where: str, place: str) -> tuple[int, int]:
    """Elements and bytes that a dataset declares."""
    plan = dataset.get_create_plist()
    if plan.get_external_count():
        target = plan.get_external(0)[0].decode("utf-8", "replace")
        raise _unsafe("a dataset kept in another file", where, place, f"external storage in {target!r}")
    if plan.get_layout() == h5d.VIRTUAL:
        raise _unsafe("a dataset kept in other files", where, place, "a virtual dataset")
    filters = {plan.get_filter(index)[0] for index in range(plan.get_nfilters())}
    if filters - _FILTERS:
        raise _unsafe("a filter that needs a plug-in", where, place, f"filter {min(filters - _FILTERS)}")
    dtype = dataset.dtype
    if dtype.kind not in _NUMERIC_KINDS:
        raise _unsafe("a dataset that holds no numbers", where, place, f"type {dtype}")
    elements = math.prod(dataset.shape or ())
    declared, stored = elements * dtype.itemsize, dataset.get_storage_size()
    if stored > size or declared > max(_UNSUSPICIOUS_BYTES, _LARGEST_RATIO * stored):
        raise _unsafe(
            "a dataset that declares far more than the file holds",
            where,
            place,
            f"shape {dataset.shape}: {declared:,} bytes, of which {min(stored, size):,} are stored",
        )
    return elements, declared


def _link_target(group: h5g.GroupID, name: bytes, kind: int) -> str:
    if kind not in (h5l.TYPE_SOFT, h5l.TYPE_EXTERNAL):
        return f"a link of type {kind}"
    value = group.links.get_val(name)
    parts = value if isinstance(value, tuple) else (value,)
    target = ":".join(part.decode("utf-8", "replace") for part in parts)
    return f"{'an external' if kind == h5l.TYPE_EXTERNAL else 'a soft'} link to {target!r}"


def _unsafe(what: str, where: str, place: str, found: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"the file has {what}",
        where=f"{where}, {place}",
        found=found,
        allowed="groups and datasets of numbers, all kept in the file itself",
        next_step="do not use this file; a model saved by Keras has nothing of the kind",
    )


def text_attribute(file: h5py.File, name: str, where: str) -> str | None:
    """A text attribute of the root group; None where there is none.

    Raises:
        ModelRejectedError: It is not text.
    """
    value = file.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if isinstance(value, str | None):
        return value
    raise ModelRejectedError(
        f"the attribute {name!r} is not text", where=where, found=type(value).__name__, allowed="JSON text"
    )
