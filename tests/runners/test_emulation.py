from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_edge.errors import DependencyMissingError, RunnerUnreachableError, UsageError
from resnet_edge.runners import wheels
from resnet_edge.runners.commands import CommandFailedError, run
from resnet_edge.runners.emulation import debian, machine
from resnet_edge.runners.emulation.debian import (
    Distribution,
    Source,
    guest_uri,
    host_distribution,
    own_sources,
)
from resnet_edge.runners.emulation.machine import CPUS, Emulator, emulated_site, find_emulator, known_cpu
from resnet_edge.runners.emulation.self_check import SelfCheck
from resnet_edge.runners.emulation.set_up import set_up
from resnet_edge.runners.emulation.views import cpuinfo, make_view
from resnet_edge.stages import Stages

BOOKWORM = Distribution(name="debian", codename="bookworm")
NOBLE = Distribution(name="ubuntu", codename="noble")


class TestHost:
    @pytest.mark.parametrize(
        ("text", "name", "codename"),
        [
            ("ID=debian\nVERSION_CODENAME=bookworm\n", "debian", "bookworm"),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n", "ubuntu", "noble"),
            (
                'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=xia\nUBUNTU_CODENAME=noble\n',
                "ubuntu",
                "noble",
            ),
            ('ID=raspbian\nID_LIKE=debian\nVERSION_CODENAME="bookworm"\n', "debian", "bookworm"),
        ],
    )
    def test_distributions(
        self, text: str, name: str, codename: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Distribution, "keyring", property(lambda self: tmp_path))
        monkeypatch.setattr(Path, "is_file", lambda self: True)
        (tmp_path / "os-release").write_text(text)
        assert host_distribution(tmp_path / "os-release") == Distribution(name=name, codename=codename)

    @pytest.mark.parametrize("text", ['ID=fedora\nPRETTY_NAME="Fedora Linux 42"\n', "", "ID=debian\n"])
    def test_other_systems_are_told_what_to_do(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "os-release").write_text(text)
        with pytest.raises(DependencyMissingError, match="ssh://") as caught:
            host_distribution(tmp_path / "os-release")
        assert caught.value.exit_code == 4

    def test_missing_keys_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Distribution, "keyring", property(lambda self: tmp_path / "keys.gpg"))
        (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
        with pytest.raises(DependencyMissingError, match=r"keys\.gpg"):
            host_distribution(tmp_path / "os-release")


class TestSources:
    def test_what_others_offer_for_the_release_is_left_out(self) -> None:
        own = [
            Source(uri="http://mirror/debian/", suite="bookworm", component="main"),
            Source(uri="http://mirror/debian/", suite="bookworm-updates", component="main"),
            Source(uri="http://mirror/debian-security/", suite="bookworm-security", component="main"),
        ]
        others = [
            Source(uri="http://containers/debian/", suite="bookworm", component="stable"),
            Source(uri="http://scripts/", suite="nodistro", component="main"),
            Source(uri="http://someone/ppa/", suite="bookworm", component="main"),
            Source(uri="http://mirror/debian/", suite="trixie", component="main"),
        ]
        assert own_sources([*own, *others], BOOKWORM) == own

    def test_a_mirror_alone_is_taken(self) -> None:
        sources = [Source(uri="http://mirror/debian/", suite="bookworm", component="main")]
        assert own_sources(sources, BOOKWORM) == sources

    def test_none_is_an_error(self) -> None:
        with pytest.raises(DependencyMissingError, match="no package source"):
            own_sources([Source(uri="http://mirror/", suite="trixie", component="main")], BOOKWORM)

    @pytest.mark.parametrize(
        ("uri", "expected"),
        [
            ("http://de.archive.ubuntu.example/ubuntu/", "http://ports.ubuntu.example/ubuntu-ports/"),
            ("http://security.ubuntu.example/ubuntu/", "http://ports.ubuntu.example/ubuntu-ports/"),
            ("http://mirror.example/ubuntu/", "http://mirror.example/ubuntu/"),
        ],
    )
    def test_ubuntu_keeps_arm_elsewhere(self, uri: str, expected: str) -> None:
        assert guest_uri(uri, NOBLE) == expected
        assert guest_uri(uri, BOOKWORM) == uri

    def test_a_mirror_whose_updates_are_being_replaced_does_not_stop_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[str] = []

        def update(argv: list[str], **_: Any) -> str:
            if argv[0] == "dpkg":
                return "amd64\n"
            tried.append((tmp_path / "apt/sources.list").read_text())
            if "bookworm-security" in tried[-1]:
                raise CommandFailedError("File has unexpected size. Mirror sync in progress?")
            return ""

        monkeypatch.setattr(debian, "run", update)
        sources = [
            Source(uri="http://mirror/debian/", suite="bookworm", component="main"),
            Source(uri="http://mirror/debian-security/", suite="bookworm-security", component="main"),
        ]
        debian.PrivateApt(tmp_path / "apt", BOOKWORM, sources).update()
        assert len(tried) == 2
        assert tried[1].count("deb [arch=") == 2  # the guest's and the host's


def package(path: Path, members: dict[str, bytes | str]) -> Path:
    """A Debian package; a text stands for a link to there."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as files:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                files.addfile(info)
            else:
                info.size = len(content)
                files.addfile(info, io.BytesIO(content))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w"):
        pass
    parts = {"debian-binary": b"2.0\n", "control.tar": control.getvalue(), "data.tar": data.getvalue()}
    with path.open("wb") as archive:
        archive.write(b"!<arch>\n")
        for name, content in parts.items():
            archive.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content)
            archive.write(b"\n" * (len(content) % 2))
    return path


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is Debian's")
class TestExtract:
    def test_one_program(self, tmp_path: Path) -> None:
        deb = package(tmp_path / "a.deb", {"./usr/bin/qemu": b"program", "./usr/bin/other": b"x" * 10**6})
        assert debian.extract(deb, "./usr/bin/qemu", tmp_path / "qemu")
        assert (tmp_path / "qemu").read_bytes() == b"program"
        assert os.access(tmp_path / "qemu", os.X_OK)

    def test_a_link_is_not_taken_for_the_program(self, tmp_path: Path) -> None:
        deb = package(tmp_path / "a.deb", {"./usr/bin/qemu": "../lib/qemu"})
        assert not debian.extract(deb, "./usr/bin/qemu", tmp_path / "qemu")
        assert not (tmp_path / "qemu").exists()


PLATFORM = wheels.Platform(python="3.12", glibc=(2, 36))


class TestWheels:
    def report(self, argv: list[str]) -> None:
        (target,) = (part.removeprefix("--report=") for part in argv if str(part).startswith("--report="))
        hashes = {"archive_info": {"hashes": {"sha256": "ab"}}}
        item = {"metadata": {"name": "numpy", "version": "2.0"}, "download_info": hashes}
        Path(target).write_text(json.dumps({"install": [item]}))

    def test_the_hosts_versions_are_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[list[str]] = []

        def pip(argv: list[str], **_: Any) -> str:
            asked.append(argv)
            self.report(argv)
            return ""

        monkeypatch.setattr(wheels, "run", pip)
        digests = wheels.install(tmp_path / "site", PLATFORM, {"numpy": "2.0", "onnxruntime": "1.20"})
        assert digests == {"numpy 2.0": "ab"}
        assert asked[0][-3:] == ["numpy==2.0", "ai-edge-litert", "onnxruntime==1.20"]
        assert "--platform=manylinux_2_36_aarch64" in asked[0]
        assert "--platform=manylinux_2_37_aarch64" not in asked[0]

    def test_without_wheels_of_the_version_another_is_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[list[str]] = []

        def pip(argv: list[str], **_: Any) -> str:
            asked.append(argv)
            if "numpy==1.0" in argv:
                raise CommandFailedError("pip", found="ERROR: No matching distribution found for numpy==1.0")
            self.report(argv)
            return ""

        monkeypatch.setattr(wheels, "run", pip)
        wheels.install(tmp_path / "site", PLATFORM, {"numpy": "1.0"})
        assert asked[1][-3:] == ["numpy", "ai-edge-litert", "onnxruntime"]

    def test_no_network_is_no_reason_for_other_versions(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pip(argv: list[str], **_: Any) -> str:
            raise CommandFailedError("pip", found="ConnectionError")

        monkeypatch.setattr(wheels, "run", pip)
        with pytest.raises(CommandFailedError, match="ConnectionError"):
            wheels.install(tmp_path / "site", PLATFORM, {"numpy": "1.0"})


class TestCommands:
    def test_a_program_that_is_not_there(self) -> None:
        with pytest.raises(DependencyMissingError, match="cannot be started"):
            run(["/nonexistent/apt-get"], next_step="install it")

    def test_a_program_that_fails(self) -> None:
        with pytest.raises(CommandFailedError, match=r"exit code 3\n.*no room"):
            run(["sh", "-c", "echo no room >&2; exit 3"], next_step="make room")


class TestMachine:
    def test_not_set_up(self, tmp_path: Path) -> None:
        with pytest.raises(RunnerUnreachableError, match="runners setup qemu") as caught:
            find_emulator(tmp_path)
        assert caught.value.exit_code == 6

    @pytest.mark.parametrize("damage", ["unfinished", "cut off", "older", "no program", "other versions"])
    def test_what_is_not_complete_is_not_used(self, damage: str, tmp_path: Path) -> None:
        folder = machine.emulator_folder(tmp_path)
        folder.mkdir()
        (folder / "qemu").touch()
        stamp = {
            "schema": machine.SCHEMA,
            "versions": wheels.host_versions(),
            "python": "3.12",
            "complete": True,
        }
        text = json.dumps(stamp)
        (folder / machine.STAMP).write_text(text)
        assert find_emulator(tmp_path) == Emulator(folder=folder, python="3.12")
        match damage:
            case "unfinished":
                text = json.dumps({**stamp, "complete": False})
            case "cut off":
                text = text[:20]
            case "older":
                text = json.dumps({**stamp, "schema": 0})
            case "no program":
                (folder / "qemu").unlink()
            case "other versions":
                text = json.dumps({**stamp, "versions": {"numpy": "1.0"}})
        (folder / machine.STAMP).write_text(text)
        with pytest.raises(RunnerUnreachableError, match="runners setup qemu"):
            find_emulator(tmp_path)

    def test_the_guest_hears_nothing_of_the_hosts_python(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("PYTHONHOME", "PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "QEMU_CPU"):
            monkeypatch.setenv(name, "/host")
        argv, env = Emulator(folder=tmp_path, python="3.12").command("cortex-a53")
        assert argv[1:3] == ["-cpu", "cortex-a53"]
        assert argv[-2:] == [f"{tmp_path}/views/cortex-a53/usr/bin/python3.12", "-I"]
        assert "/host" not in env.values()

    def test_processors(self) -> None:
        assert known_cpu("cortex-a53") == "cortex-a53"
        assert known_cpu("") in CPUS
        with pytest.raises(UsageError, match="neoverse-n1"):
            known_cpu("max")


def test_cpuinfo_is_what_linux_writes() -> None:
    # A Raspberry Pi 4: the MIDR_EL1 and the lines of its Cortex-A72.
    text = cpuinfo(0x410FD083, ["fp", "asimd", "evtstrm", "crc32", "cpuid"], 2)
    assert text.split("\n\n")[1].splitlines() == [
        "processor\t: 1",
        "BogoMIPS\t: 100.00",
        "Features\t: fp asimd evtstrm crc32 cpuid",
        "CPU implementer\t: 0x41",
        "CPU architecture\t: 8",
        "CPU variant\t: 0x0",
        "CPU part\t: 0xd08",
        "CPU revision\t: 3",
    ]


class TestForReal:
    def test_a_complete_machine_is_left_as_it_is(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subprocess, "Popen", None)
        stages = Stages()
        assert set_up(stages).folder == emulator.folder
        assert not stages.seconds

    def test_every_processor_says_what_it_is(self, emulator: Emulator) -> None:
        found = {}
        for cpu in CPUS:
            with emulated_site(emulator, cpu).start() as process:
                answer = process.request("probe", timeout=60)
                assert answer["machine"] == "aarch64"
                assert answer["packages"]["ai-edge-litert"]
                listed = (emulator.view(cpu) / "proc/cpuinfo").read_text().split("Features\t: ")[1]
                assert answer["features"] == sorted(listed.splitlines()[0].split())
                found[answer["cpu"]] = set(answer["features"])
        assert list(found) == ["Cortex-A53", "Cortex-A72", "Cortex-A76", "Neoverse-N1"]
        assert "asimddp" not in found["Cortex-A53"]
        assert "asimddp" in found["Cortex-A76"]

    def test_a_wrong_emulator_is_refused(self, emulator: Emulator, tmp_path: Path) -> None:
        version = run([emulator.folder / "qemu", "--version"], next_step="")
        if " 7.2" not in version:
            pytest.skip(f"only QEMU 7.2 is known to compute wrong results: {version.splitlines()[0]}")
        broken = replace(emulator, folder=tmp_path)
        for name in ("qemu", "root"):
            (tmp_path / name).symlink_to(emulator.folder / name)
        make_view(broken, "max")
        with pytest.raises(DependencyMissingError, match="wrong results"):
            SelfCheck(tmp_path).check(emulated_site(broken, "max"))

    def test_a_slightly_wrong_site_is_refused(self, tmp_path: Path, emulator: Emulator) -> None:
        check = SelfCheck(tmp_path)
        case = check._cases[0]
        expected = case.expected.copy()
        expected[0, 0] += np.float32(1e-3)
        check._cases = (replace(case, expected=expected), check._cases[1])
        with pytest.raises(DependencyMissingError, match="1 of 80 values differ"):
            check.check(emulated_site(emulator, "cortex-a53"))
