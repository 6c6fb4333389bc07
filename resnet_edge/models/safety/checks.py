"""The checks of a whole file: archive, HDF5 structure and configuration in one go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError
from resnet_edge.models.safety.archive import (
    CONFIG,
    METADATA,
    WEIGHTS,
    open_archive,
    weights_region,
)
from resnet_edge.models.safety.archive import SIGNATURE as ZIP_SIGNATURE
from resnet_edge.models.safety.config import CheckedConfig, check_config
from resnet_edge.models.safety.hdf5 import SIGNATURE as HDF5_SIGNATURE
from resnet_edge.models.safety.hdf5 import check_structure, open_hdf5, text_attribute
from resnet_edge.models.safety.heap import check_global_heaps
from resnet_edge.models.safety.region import Region

if TYPE_CHECKING:
    import zipfile
    from pathlib import Path

_GIT_LFS = b"version https://git-lfs"


def check_keras_archive(
    path: Path,
    *,
    custom_classes: frozenset[str] = frozenset(),
    allow_unsafe_code: bool = False,
    weights_only: bool = False,
) -> CheckedConfig | None:
    """Check a ``.keras`` archive.

    Args:
        path: The file.
        custom_classes: Plain and registered (``Package>Name``) names of the user's classes and functions.
        allow_unsafe_code: Whether Lambda layers and functions named by the file are let through.
        weights_only: Whether nothing but the weights will be used; the configuration is not looked at then.

    Returns:
        The checked configuration, which is what to deserialize; None with ``weights_only``.

    Raises:
        UnsafeFileError: The file holds code, links or sizes that must not reach a loader.
        ModelRejectedError: It is no such file, is damaged, or has a class outside the closed set.
    """
    _check_signature(path, ZIP_SIGNATURE, "a .keras archive")
    with open_archive(path) as archive:
        where = f"{path}, {WEIGHTS}"
        with weights_region(archive) as region:
            check_global_heaps(region, where)
            with open_hdf5(region.stream(), where) as file:
                elements = check_structure(file, size=region.size, where=where)
        if weights_only:
            return None
        version = _archive_version(archive)
        if version.startswith("2."):
            raise ModelRejectedError(
                "the archive was written by Keras 2, whose .keras files Keras 3 cannot read",
                where=str(path),
                found=f"Keras {version}",
                allowed="Keras 3, or Keras 2 in an HDF5 file",
                next_step="load it with the TensorFlow that wrote it and save it by model.save('NAME.h5')",
            )
        return check_config(
            archive.read(CONFIG),
            where=f"{path}, {CONFIG}",
            elements=elements,
            keras_version=version,
            custom_classes=custom_classes,
            allow_unsafe_code=allow_unsafe_code,
        )


def check_hdf5(
    path: Path,
    *,
    custom_classes: frozenset[str] = frozenset(),
    allow_unsafe_code: bool = False,
    weights_only: bool = False,
) -> CheckedConfig | None:
    """Check an HDF5 file: a whole model (``.h5``) or weights (``.weights.h5``).

    Args:
        path: The file.
        custom_classes: Plain and registered (``Package>Name``) names of the user's classes and functions.
        allow_unsafe_code: Whether Lambda layers and functions named by the file are let through.
        weights_only: Whether nothing but the weights will be used; a configuration is not looked at then.

    Returns:
        The checked configuration, which is what to deserialize; None with ``weights_only`` or for a file that
        has none.

    Raises:
        UnsafeFileError: The file holds code, links or sizes that must not reach a loader.
        ModelRejectedError: It is no such file, is damaged, or has a class outside the closed set.
    """
    _check_signature(path, HDF5_SIGNATURE, "an HDF5 file")
    where, size = str(path), path.stat().st_size
    with path.open("rb") as file:
        check_global_heaps(Region(file=file, start=0, size=size), where)
    with open_hdf5(path, where) as hdf5:
        elements = check_structure(hdf5, size=size, where=where)
        config = None if weights_only else text_attribute(hdf5, "model_config", where)
        keras_version = text_attribute(hdf5, "keras_version", where) or ""
    if config is None:
        return None
    return check_config(
        config,
        where=f"{where}, model_config",
        elements=elements,
        keras_version=keras_version,
        custom_classes=custom_classes,
        allow_unsafe_code=allow_unsafe_code,
    )


def _archive_version(archive: zipfile.ZipFile) -> str:
    """The Keras version in the metadata; "" where there is none."""
    if METADATA not in archive.namelist():
        return ""
    try:
        metadata = json.loads(archive.read(METADATA))
    except (ValueError, RecursionError):
        return ""
    return str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""


def _check_signature(path: Path, signature: bytes, wanted: str) -> None:
    """Refuse a file that is something else than its name says, with what it is instead."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_GIT_LFS))
    except OSError as error:
        raise ModelRejectedError(
            "the model file cannot be read", where=str(path), found=error.strerror or str(error)
        ) from error
    if start.startswith(signature):
        return
    found, next_step = _guess(start)
    raise ModelRejectedError(
        f"the file is not {wanted}", where=str(path), found=found, allowed=wanted, next_step=next_step
    )


def _guess(start: bytes) -> tuple[str, str]:
    if not start:
        return "an empty file", "get the file again from its source"
    if start.startswith(HDF5_SIGNATURE):
        return "an HDF5 file", "rename it to .h5"
    if start.startswith(ZIP_SIGNATURE):
        return "a ZIP archive", "rename it to .keras if Keras wrote it"
    if start.startswith(_GIT_LFS):
        return "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"
    if all(byte in b"\t\n\r" or byte >= 0x20 for byte in start):
        return f"text: {start.decode('utf-8', 'replace')!r}", "check where the file came from"
    return f"bytes {start[:8].hex(' ')}", "get the file again from its source"
