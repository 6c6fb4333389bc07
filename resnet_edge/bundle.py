"""The bundle on disk: a folder that is complete or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_edge import stopping
from resnet_edge.errors import ConversionFailedError, ModelRejectedError, UsageError
from resnet_edge.manifest import (
    MANIFEST_NAME,
    ArtifactRecord,
    Manifest,
    ProofRecord,
    ReferenceRecord,
    is_manifest,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_destination(destination: Path) -> None:
    """Refuse a place where a bundle cannot go, before any work is done.

    Raises:
        UsageError: It is a file, a folder with other things in it, or cannot be written.
    """
    if destination.is_dir():
        if any(destination.iterdir()) and not is_manifest(destination / MANIFEST_NAME):
            raise UsageError(
                "the output folder is not a bundle and not empty",
                where=str(destination),
                allowed="a bundle (replaced as a whole), an empty folder, or a new name",
                next_step="choose another -o; nothing was changed",
            )
    elif destination.exists() or destination.is_symlink():
        raise UsageError(
            "the output is a file, not a folder", where=str(destination), next_step="choose another -o"
        )
    folder = _existing_parent(destination)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            "the output folder cannot be made",
            where=str(folder),
            found="not a folder" if not folder.is_dir() else "no permission to write there",
            next_step="choose another -o",
        )


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


@contextlib.contextmanager
def writing(destination: Path) -> Iterator[Path]:
    """A new folder beside ``destination`` that takes its place when the block ends without an error.

    Whatever ends the block early - an error, Ctrl-C, a full disk - removes the new folder and leaves what was
    at ``destination`` as it was.

    Raises:
        ConversionFailedError: The file system refuses (full, read-only, quota).
    """
    target = destination.resolve()  # of a link, the folder that it leads to: the link stays
    made = _make_parents(target.parent)
    stage = target.parent / f".{target.name}.partial-{secrets.token_hex(4)}"
    try:
        stage.mkdir()
        yield stage
        stopping.check()
        _swap(stage, target)
    except BaseException as error:
        shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has put something there: leave it
                folder.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(destination, error) from error
        raise


def bundle_at(place: object) -> Path | None:
    """The path of a bundle; None for anything else that a user may call a model."""
    path = Path(place) if isinstance(place, str | Path) else None
    return path if path is not None and is_manifest(path / MANIFEST_NAME) else None


def adopt(bundle: Path, folder: Path, *, replaced: bool = False) -> Manifest:
    """Put everything of a bundle but its manifest, which is returned, into a new folder.

    Args:
        bundle: The bundle; it stays as it is.
        folder: The new folder.
        replaced: Whether the new folder will take the bundle's place. Its files are then shared where the
            file system can do that: replace them, never write into them. Two bundles that stay share none,
            because their users may write into the files of one.

    Raises:
        ModelRejectedError: The manifest cannot be read, or a file that it lists is gone.
    """
    manifest = read_manifest(bundle)
    listed = [record.path for record in manifest.reference] + [record.path for record in manifest.artifacts]
    for name in listed:
        if not (bundle / name).exists():
            raise ModelRejectedError(
                "the bundle lacks a file that its manifest lists",
                where=str(bundle / name),
                next_step="export the model again",
            )
    put = _link if replaced else shutil.copy2
    for path in bundle.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name, copy_function=put)
        elif path.name != MANIFEST_NAME:
            put(path, folder / path.name)
    return manifest


def _link(source: str | Path, destination: str | Path) -> None:
    try:
        os.link(source, destination)
    except OSError:  # a file system without hard links
        shutil.copy2(source, destination)


def remove(path: Path) -> None:
    """Take a file or folder out of a bundle in the making, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> ConversionFailedError:
    """The error for a file system that refuses."""
    return ConversionFailedError(
        "cannot write the output",
        where=str(path),
        found=error.strerror or str(error),
        next_step="free some space or choose another -o; nothing was left behind",
    )


def _make_parents(folder: Path) -> list[Path]:
    """Make the missing folders above a bundle; those made, deepest first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir()
    return missing


def _swap(stage: Path, target: Path) -> None:
    """Put ``stage`` in ``target``'s place; two renames, undone if the second fails."""
    if not target.exists():
        stage.rename(target)
        return
    old = target.parent / f".{target.name}.replaced-{secrets.token_hex(4)}"
    target.rename(old)
    try:
        stage.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of its files' relative names and digests in sorted order."""
    if path.is_dir():
        total = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            total.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def float_record(path: Path, format: str, proof: ProofRecord) -> ArtifactRecord:  # noqa: A002 - its name everywhere
    """What the manifest says of a float artifact that was just written and proven."""
    return ArtifactRecord(
        path=path.name, format=format, precision="fp32", size=size(path), sha256=digest(path), proof=proof
    )


def reference_record(path: Path, format: str) -> ReferenceRecord:  # noqa: A002 - its name everywhere
    """What the manifest says of a form of the float model that was just written."""
    return ReferenceRecord(path=path.name, format=format, size=size(path), sha256=digest(path))
