"""Makes the emulated ARM machine: half a minute, some 250 MB in the user's cache, and nothing elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import platform
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import DependencyMissingError
from resnet_edge.runners import wheels
from resnet_edge.runners.cache import cache_folder
from resnet_edge.runners.commands import run
from resnet_edge.runners.emulation import debian
from resnet_edge.runners.emulation.machine import (
    CPUS,
    SCHEMA,
    STAMP,
    Emulator,
    emulated_site,
    emulator_folder,
    read_stamp,
)
from resnet_edge.runners.emulation.views import make_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnet_edge.stages import Stages

PYTHONS = ("3.13", "3.12", "3.11")
"""Versions that the runtimes have wheels for, the newest first."""

_QEMU = (("qemu-user-static", "qemu-aarch64-static"), ("qemu-user", "qemu-aarch64"))
"""Where a statically linked QEMU can be: package, and program. Newer releases link that of qemu-user so."""

_RETRY = "run it again: what is done is kept"


def set_up(stages: Stages, cache: Path | None = None) -> Emulator:
    """Make the machine, as far as it is not made already.

    Every step is noted in a stamp, with the digests of what it downloaded; a broken-off set-up goes on where
    it stopped. The machine is complete once models have been run on each processor.

    Args:
        stages: Told what is going on.
        cache: The folder that takes it; by default the user's cache.

    Raises:
        DependencyMissingError: The host is no Debian or Ubuntu, offers no Python that the runtimes have
            wheels for, a download fails, or the emulator computes wrong results.
        RunnerUnreachableError: The emulated Python does not answer.
    """
    folder = emulator_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        return _SetUp(folder, stages).run()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for other processes that set up the same machine."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _SetUp:
    """The steps; each can be repeated, and is left out where the stamp says that it is done."""

    def __init__(self, folder: Path, stages: Stages) -> None:
        self._folder, self._root, self._stages = folder, folder / "root", stages
        self._distribution = debian.host_distribution()
        self._versions = wheels.host_versions()
        self._apt: debian.PrivateApt | None = None
        self._stamp = read_stamp(folder)
        if self._stamp.get("host") != self._host():
            self._stamp = {"schema": SCHEMA, "host": self._host(), "packages": {}, "wheels": {}}

    def _host(self) -> list[str]:
        return [self._distribution.name, self._distribution.codename, platform.machine()]

    def run(self) -> Emulator:
        """All steps in order."""
        if self._stamp.get("versions") != self._versions:
            self._note(versions=self._versions, wheels={}, complete=False)
        if not self._stamp.get("python"):
            self._unpack_python()
        if not self._stamp.get("qemu"):
            self._unpack_qemu()
        shutil.rmtree(self._folder / "apt", ignore_errors=True)  # makes room for the runtimes
        if not self._stamp["wheels"]:
            self._install_runtimes()
        emulator = Emulator(folder=self._folder, python=self._stamp["python"])
        if not self._stamp.get("complete"):
            self._check(emulator)
        return emulator

    def _note(self, **entries: Any) -> None:
        self._stamp.update(entries)
        unfinished = self._folder / f"{STAMP}.partial"
        unfinished.write_text(json.dumps(self._stamp, indent=2), "utf-8")
        unfinished.replace(self._folder / STAMP)

    def _package_lists(self) -> debian.PrivateApt:
        """Apt with its lists, fetched when they are first needed."""
        if self._apt is None:
            with self._stages.stage("fetching package lists"):
                sources = debian.host_sources(self._distribution)
                apt = debian.PrivateApt(self._folder / "apt", self._distribution, sources)
                apt.update()
            self._apt = apt
        return self._apt

    def _unpack_python(self) -> None:
        apt = self._package_lists()
        python = next((each for each in PYTHONS if f"python{each}-minimal" in apt.names("python3")), None)
        if python is None:
            raise DependencyMissingError(
                "the host's distribution has no Python for 64-bit ARM that the runtimes have wheels for",
                found=" ".join(self._host()),
                allowed=", ".join(PYTHONS),
                next_step="use a newer release, or verify on a board with --runner ssh://USER@HOST",
            )
        with self._stages.stage("downloading Python for ARM"):
            files = apt.download_with_dependencies(
                [f"python{python}-minimal", f"libpython{python}-stdlib", "libstdc++6"]
            )
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir()
        with self._stages.stage("unpacking Python for ARM", total=len(files)) as done:
            for number, file in enumerate(files, start=1):
                run(["dpkg-deb", "-x", file, self._root], next_step=_RETRY)
                done(number)
        # Where /lib is a link to /usr/lib, a package that is not unpacked here would make that link.
        if not (self._root / "lib").exists():
            (self._root / "lib").symlink_to("usr/lib")
        for name in ("doc", "man", "locale"):
            shutil.rmtree(self._root / "usr/share" / name, ignore_errors=True)
        self._note(python=python, packages={file.name: _digest(file) for file in files}, wheels={})

    def _unpack_qemu(self) -> None:
        apt, target = self._package_lists(), self._folder / "qemu"
        with self._stages.stage("downloading the emulator"):
            for package, program in _QEMU:
                if package not in apt.names("qemu-user"):
                    continue
                file = apt.download(package)
                if debian.extract(file, f"./usr/bin/{program}", target):
                    self._note(qemu={"package": file.name, "sha256": _digest(target)})
                    return
        raise DependencyMissingError(
            "the host's distribution has no statically linked QEMU",
            found=" ".join(self._host()),
            allowed=" or ".join(package for package, _ in _QEMU),
            next_step="use another release, or verify on a board with --runner ssh://USER@HOST",
        )

    def _install_runtimes(self) -> None:
        with self._stages.stage("installing NumPy, LiteRT and ONNX Runtime for ARM"):
            digests = wheels.install(
                self._root / "usr/lib/python3/dist-packages",
                wheels.Platform(python=self._stamp["python"], glibc=self._glibc()),
                self._versions,
            )
        self._note(wheels=digests, complete=False)

    def _glibc(self) -> tuple[int, int]:
        """The guest's, by the package that was unpacked: ``libc6_2.36-9_arm64.deb``."""
        name = next(name for name in self._stamp["packages"] if name.startswith("libc6_"))
        major, minor = name.removeprefix("libc6_").split("-")[0].split(".")[:2]
        return int(major), int(minor)

    def _check(self, emulator: Emulator) -> None:
        # Deferred: brings the converters in, which a machine that is complete does not need.
        from resnet_edge.runners.emulation.self_check import SelfCheck

        with (
            self._stages.stage("running models on each processor", total=len(CPUS)) as done,
            tempfile.TemporaryDirectory(prefix="resnet-edge-") as folder,
            ThreadPoolExecutor(usable_cores()) as pool,
        ):
            check = SelfCheck(Path(folder))

            def check_cpu(cpu: str) -> None:
                make_view(emulator, cpu)
                check.check(emulated_site(emulator, cpu))

            check_cpu(CPUS[0])  # alone: Python compiles what it imports for the first time
            for number, _ in enumerate(pool.map(check_cpu, CPUS[1:]), start=2):
                done(number)
        self._note(complete=True)


def remove(cache: Path | None = None) -> None:
    """Remove the machine, to make it anew."""
    shutil.rmtree(emulator_folder(cache or cache_folder()), ignore_errors=True)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
