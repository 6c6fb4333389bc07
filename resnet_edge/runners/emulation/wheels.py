"""Python packages for the emulated machine, by pip, which checks each against the index's SHA-256."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from resnet_edge.runners.emulation.commands import CommandFailedError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

RUNTIMES = ("numpy", "ai-edge-litert", "onnxruntime")
"""What the agent needs."""

_OLDEST_GLIBC = 17
_NEXT = "try again: pip keeps what it has downloaded; `python -m ensurepip` if pip itself is missing"


def host_versions() -> dict[str, str]:
    """The runtimes' versions here: the emulated machine gets the same, so that outputs can be compared."""
    found = {}
    for package in RUNTIMES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def install(
    folder: Path, *, python: str, glibc: tuple[int, int], versions: Mapping[str, str]
) -> dict[str, str]:
    """Put the runtimes for 64-bit ARM into a folder, whatever is in it first removed.

    Args:
        folder: For the packages.
        python: Version that they are for: ``3.11``.
        glibc: Version that they may need.
        versions: Those wanted; where there is no wheel of such a version, another is taken.

    Returns:
        SHA-256 of each wheel, by ``name version``.

    Raises:
        CommandFailedError: pip fails.
    """
    pinned = [f"{package}=={versions[package]}" if package in versions else package for package in RUNTIMES]
    try:
        return _install(folder, pinned, python, glibc)
    except CommandFailedError as error:
        if "No matching distribution" not in error.found:
            raise
        return _install(folder, RUNTIMES, python, glibc)


def _install(folder: Path, wanted: Iterable[str], python: str, glibc: tuple[int, int]) -> dict[str, str]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = folder.with_name(f"{folder.name}.json")
    major, minor = glibc
    tags = ["manylinux2014", *(f"manylinux_{major}_{older}" for older in range(_OLDEST_GLIBC, minor + 1))]
    run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"),
            *("--disable-pip-version-check", "--only-binary=:all:", "--implementation=cp"),
            *(f"--python-version={python}", f"--target={folder}", f"--report={report}"),
            *(f"--platform={tag}_aarch64" for tag in tags),
            *wanted,
        ],
        env={**os.environ, "PIP_USER": "0"},  # contradicts --target
        next_step=_NEXT,
    )
    installed = json.loads(report.read_text("utf-8"))["install"]
    report.unlink()
    return {
        f"{item['metadata']['name']} {item['metadata']['version']}": item["download_info"]["archive_info"][
            "hashes"
        ]["sha256"]
        for item in installed
    }
