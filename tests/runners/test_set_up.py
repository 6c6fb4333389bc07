from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from resnet_edge.errors import DependencyMissingError, RunnerUnreachableError
from resnet_edge.runners import wheels
from resnet_edge.runners.emulation import debian, self_check
from resnet_edge.runners.emulation import set_up as set_up_module
from resnet_edge.runners.emulation.debian import Distribution
from resnet_edge.runners.emulation.machine import CPUS, find_emulator
from resnet_edge.runners.emulation.set_up import set_up
from resnet_edge.stages import Stages

if TYPE_CHECKING:
    from pathlib import Path

BOOKWORM = Distribution(name="debian", codename="bookworm")


class FakeWorld:
    """The steps of a set-up, without a network; one of them can be broken off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.done: list[str] = []
        self.broken = ""
        self.lacking = "nothing"
        self._folder = folder
        monkeypatch.setattr(debian, "PrivateApt", lambda *arguments: self)
        monkeypatch.setattr(debian, "host_sources", lambda distribution: [])
        monkeypatch.setattr(debian, "host_distribution", lambda: BOOKWORM)
        monkeypatch.setattr(debian, "extract", self._extract)
        monkeypatch.setattr(wheels, "install", lambda *a: self._step("wheels", {"numpy 2": "ab"}))
        monkeypatch.setattr(set_up_module, "run", lambda *a, **k: "")
        monkeypatch.setattr(set_up_module, "make_view", lambda emulator, cpu: self._step("view", None))
        monkeypatch.setattr(self_check, "SelfCheck", lambda folder: self)

    def _step(self, name: str, result: Any) -> Any:
        if name == self.broken:
            raise KeyboardInterrupt
        self.done.append(name)
        return result

    def _extract(self, package: Path, member: str, target: Path) -> bool:
        target.touch()
        return "static" in member

    def update(self) -> None:
        self._step("update", None)

    def names(self, prefix: str) -> list[str]:
        offered = ("python3.11-minimal", "python3.12-minimal", "qemu-user-static", "qemu-user-binfmt")
        return [name for name in offered if not name.startswith(self.lacking)]

    def download_with_dependencies(self, packages: list[str]) -> list[Path]:
        file = self._folder / "libc6_2.36-9_arm64.deb"
        file.touch()
        self._step("python", None)
        return [file]

    def download(self, package: str) -> Path:
        file = self._folder / package
        file.touch()
        self._step("qemu", None)
        return file

    def check(self, site: object) -> None:
        self._step("check", None)


ALL = ("update", "python", "qemu", "wheels", *["view", "check"] * len(CPUS))


def test_all_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = FakeWorld(monkeypatch, tmp_path)
    assert set_up(Stages(), tmp_path / "cache").python == "3.12"
    assert sorted(world.done) == sorted(ALL)
    world.done.clear()
    set_up(Stages(), tmp_path / "cache")
    assert not world.done
    assert find_emulator(tmp_path / "cache").python == "3.12"


@pytest.mark.parametrize("broken", ["update", "python", "qemu", "wheels", "view", "check"])
def test_goes_on_where_it_was_broken_off(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = FakeWorld(monkeypatch, tmp_path)
    world.broken = broken
    with pytest.raises(KeyboardInterrupt):
        set_up(Stages(), tmp_path / "cache")
    with pytest.raises(RunnerUnreachableError):
        find_emulator(tmp_path / "cache")
    world.broken, before = "", set(world.done)
    world.done.clear()
    set_up(Stages(), tmp_path / "cache")
    assert not (before - {"update", "view", "check"}) & set(world.done)
    assert find_emulator(tmp_path / "cache")


def test_other_versions_here_are_brought_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = FakeWorld(monkeypatch, tmp_path)
    set_up(Stages(), tmp_path / "cache")
    world.done.clear()
    monkeypatch.setattr(wheels, "host_versions", lambda: {"numpy": "3.0"})
    set_up(Stages(), tmp_path / "cache")
    assert set(world.done) == {"wheels", "view", "check"}


def test_another_release_of_the_host_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = FakeWorld(monkeypatch, tmp_path)
    set_up(Stages(), tmp_path / "cache")
    world.done.clear()
    monkeypatch.setattr(debian, "host_distribution", lambda: replace(BOOKWORM, codename="trixie"))
    set_up(Stages(), tmp_path / "cache")
    assert sorted(world.done) == sorted(ALL)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [("python", "no Python for 64-bit ARM"), ("qemu", "no statically linked QEMU")],
)
def test_a_distribution_that_lacks_something(
    lacking: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeWorld(monkeypatch, tmp_path).lacking = lacking
    with pytest.raises(DependencyMissingError, match=message):
        set_up(Stages(), tmp_path / "cache")
