"""The emulated machine as it stands in its folder: how to start Python on one of its processors."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from resnet_edge.errors import RunnerUnreachableError, UsageError
from resnet_edge.runners.cache import cache_folder
from resnet_edge.runners.sites import SharedSite
from resnet_edge.runners.wheels import host_versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Cpu: TypeAlias = Literal["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"]
"""Raspberry Pi 3, 4 and 5, and the cloud. QEMU's default, ``max``, is left out for good reason: version 7.2
gives it SME, and XNNPACK's int8 kernels for that compute wrong results there."""

CPUS: tuple[Cpu, ...] = get_args(Cpu)

DEFAULT_CPU: Cpu = "cortex-a72"

SCHEMA = 1
"""Raised when a machine that an older version has made is of no use any more."""

STAMP = "stamp.json"
_NEXT = "resnet-edge runners setup qemu"


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """A folder with the emulator (``qemu``), the machine's files (``root``) and one view of them a processor.

    Attributes:
        folder: Where it is.
        python: The guest's version: ``3.11``.
    """

    folder: Path
    python: str

    def view(self, cpu: str) -> Path:
        """The machine's files as a program on that processor sees them."""
        return self.folder / "views" / cpu

    def command(self, cpu: str) -> tuple[list[str], dict[str, str]]:
        """The command that starts Python on a processor, and its whole environment.

        Files that the machine does not have are looked for on the host, under the same path.
        """
        view = str(self.view(cpu))
        interpreter = f"{view}/usr/bin/python{self.python}"
        # Isolated (-I) and with a bare environment: what the host's Python, loader and QEMU are told by
        # variables must not reach the guest.
        kept = ("HOME", "TMPDIR", "LANG", "LC_ALL", "TERM")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        env["PATH"] = "/usr/bin:/bin"
        return [str(self.folder / "qemu"), "-cpu", cpu, "-L", view, interpreter, "-I"], env


def emulator_folder(cache: Path | None = None) -> Path:
    """Where the machine is, or will be; by default in :func:`cache_folder`."""
    return (cache or cache_folder()) / "qemu-aarch64"


def find_emulator(cache: Path | None = None) -> Emulator:
    """The machine, if it is complete and fits this one.

    Raises:
        RunnerUnreachableError: It is not set up, not completely, or with other versions of the runtimes.
    """
    folder = emulator_folder(cache)
    stamp = read_stamp(folder)
    if not (stamp.get("complete") and (folder / "qemu").is_file()):
        raise RunnerUnreachableError(
            "the emulated ARM machine is not set up", where=str(folder), next_step=_NEXT
        )
    wanted = host_versions()
    if stamp["versions"] != wanted:
        raise RunnerUnreachableError(
            "the emulated ARM machine has other versions of the runtimes than this one",
            where=str(folder),
            found=_listed(stamp["versions"]),
            allowed=_listed(wanted),
            next_step=_NEXT,
        )
    return Emulator(folder=folder, python=stamp["python"])


def emulated_site(emulator: Emulator, cpu: str) -> SharedSite:
    """Python on an emulated processor."""
    argv, env = emulator.command(cpu)
    return SharedSite(argv, where=f"qemu:{cpu}", next_step=_NEXT, env=env)


def read_stamp(folder: Path) -> dict[str, Any]:
    """What the set-up has noted; nothing where it cannot be read or is of another schema."""
    try:
        stamp = json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and stamp.get("schema") == SCHEMA else {}


def known_cpu(name: str) -> Cpu:
    """The processor of that name; the default for none.

    Raises:
        UsageError: There is no such processor.
    """
    for cpu in CPUS:
        if cpu == (name or DEFAULT_CPU):
            return cpu
    raise UsageError(
        "there is no such emulated processor",
        found=name,
        allowed=", ".join(CPUS),
        next_step="for any other, verify on the board itself with --runner ssh://USER@HOST",
    )


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())
