"""The runtimes as wheels for another machine, by pip, which checks each against its index's SHA-256."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from resnet_edge.runners.commands import CommandFailedError, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RUNTIMES = ("numpy", "ai-edge-litert", "onnxruntime")
"""What the agent needs."""

_OLDEST_GLIBC = 17
_NO_WHEEL = "No matching distribution"
_NEXT = "try again: pip keeps what it has downloaded; `python -m ensurepip` if pip itself is missing"


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What wheels are for.

    Attributes:
        python: ``3.11``.
        glibc: (major, minor) of the newest C library that they may need.
        architecture: ``aarch64``.
    """

    python: str
    glibc: tuple[int, int]
    architecture: str = "aarch64"

    def arguments(self) -> list[str]:
        """For pip: every tag of PEP 600 that such a machine accepts."""
        major, minor = self.glibc
        tags = ["manylinux2014", *(f"manylinux_{major}_{older}" for older in range(_OLDEST_GLIBC, minor + 1))]
        return [
            *("--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}"),
            *(f"--platform={tag}_{self.architecture}" for tag in tags),
        ]


def host_versions() -> dict[str, str]:
    """The runtimes' versions here: other machines get the same, so that outputs can be compared."""
    found = {}
    for package in RUNTIMES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def pinned(package: str, versions: Mapping[str, str]) -> str:
    """A requirement: of that version where there is one."""
    return f"{package}=={versions[package]}" if package in versions else package


def install(folder: Path, platform: Platform, versions: Mapping[str, str]) -> dict[str, str]:
    """Put the runtimes into a folder, whatever is in it first removed.

    Args:
        folder: For the packages.
        platform: What they are for.
        versions: Those wanted; where there is no wheel of such a version, another is taken.

    Returns:
        SHA-256 of each wheel, by ``name version``.

    Raises:
        CommandFailedError: pip fails.
    """
    try:
        return _install(folder, platform, [pinned(package, versions) for package in RUNTIMES])
    except CommandFailedError as error:
        if _NO_WHEEL not in error.found:
            raise
        return _install(folder, platform, RUNTIMES)


def _install(folder: Path, platform: Platform, wanted: Sequence[str]) -> dict[str, str]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = folder.with_name(f"{folder.name}.json")
    _pip(f"--target={folder}", f"--report={report}", "--no-compile", *platform.arguments(), *wanted)
    installed = json.loads(report.read_text("utf-8"))["install"]
    report.unlink()
    return {
        f"{each['metadata']['name']} {each['metadata']['version']}": each["download_info"]["archive_info"][
            "hashes"
        ]["sha256"]
        for each in installed
    }


def newest(package: str, platform: Platform) -> str | None:
    """The newest version of which there is a wheel; None where there is none.

    Raises:
        CommandFailedError: pip fails, for want of a network or otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="resnet-edge-") as folder:
        options = ("--dry-run", "--no-deps", f"--target={folder}", "--report=-")
        try:
            report = _pip(*options, *platform.arguments(), package)
        except CommandFailedError as error:
            if _NO_WHEEL in error.found:
                return None
            raise
    (found,) = json.loads(report)["install"]
    return str(found["metadata"]["version"])


def _pip(*arguments: str) -> str:
    return run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input"),
            "--disable-pip-version-check",
            *arguments,
        ],
        env={**os.environ, "PIP_USER": "0"},  # contradicts --target
        next_step=_NEXT,
    )
