"""A whole emulated board: its own kernel, its own sshd; not part of the suite (`make test-board`)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from resnet_edge.runners.agent_process import ConnectionLostError
from resnet_edge.runners.commands import run as run_command
from resnet_edge.runners.emulation.debian import PrivateApt, host_distribution, host_sources
from resnet_edge.runners.ssh import SshRunner
from tests.command_line import run
from tests.runners.boards import free_port, make_client, make_key
from tests.runners.conftest import emulator as emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

    from resnet_edge.runners.emulation.machine import Emulator

QEMU = "qemu-system-aarch64"
GUEST_PACKAGES = ("busybox-static", "dropbear-bin", "libtomcrypt1", "libtommath1", "libgmp10")
MODULES = (
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
KERNEL = re.compile(r"linux-image-(\d+)\.(\d+)\.(\d+)-(\d+)-arm64")
BOOT_SECONDS = 180

INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {" ".join(MODULES)}; do [ -f /modules/$module.ko ] && insmod /modules/$module.ko; done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
exec dropbear -F -E -s -p 22 -r /etc/dropbear/host_key
"""


def write_cpio(folder: Path, archive: IO[bytes]) -> None:
    """An initial RAM disk, in the format that the kernel documents as newc; everything belongs to root."""

    def add(name: str, mode: int, data: bytes) -> None:
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive.write(header + b"\0" * (-len(header) % 4) + data + b"\0" * (-len(data) % 4))

    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            data = str(path.readlink()).encode()
        else:
            data = path.read_bytes() if stat.S_ISREG(mode) else b""
        add(str(path.relative_to(folder)), mode, data)
    add("TRAILER!!!", 0, b"")


class Builder:
    """The board's files: the emulated machine's, and what makes a machine of them."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.folder, self.tree, self._emulator = folder, folder / "tree", emulator

    def build(self, public_key: str) -> str:
        """Write ``vmlinuz`` and ``initrd``; the board's host key."""
        shutil.copytree(self._emulator.folder / "root", self.tree, symlinks=True)
        self._unpack_packages()
        (self.tree / "init").write_text(INIT)
        (self.tree / "init").chmod(0o755)
        home = self.tree / "root/.ssh"
        home.mkdir(parents=True)
        (home / "authorized_keys").write_text(public_key)
        for path in (self.tree / "root", home, home / "authorized_keys"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        (self.tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        python = self.tree / "usr/bin/python3"
        python.unlink(missing_ok=True)
        python.symlink_to(f"python{self._emulator.python}")
        host_key = self._make_host_key()
        with (self.folder / "initrd").open("wb") as archive:
            write_cpio(self.tree, archive)
        return host_key

    def _unpack_packages(self) -> None:
        distribution = host_distribution()
        apt = PrivateApt(self.folder / "apt", distribution, host_sources(distribution))
        apt.update()
        for package in GUEST_PACKAGES:
            run_command(["dpkg-deb", "-x", apt.download(package, guest=True), self.tree], next_step="")
        kernels = [KERNEL.fullmatch(name) for name in apt.names("linux-image-")]
        kernel = max((found for found in kernels if found), key=lambda found: [*map(int, found.groups())])
        unpacked = self.folder / "kernel"
        run_command(["dpkg-deb", "-x", apt.download(kernel[0], guest=True), unpacked], next_step="")
        (image,) = unpacked.glob("boot/vmlinuz-*")
        shutil.copy2(image, self.folder / "vmlinuz")
        (self.tree / "modules").mkdir()
        for module in unpacked.rglob("*.ko*"):
            if module.name.split(".")[0] in MODULES:
                shutil.copy2(module, self.tree / "modules")
        run_command(["sh", "-c", "unxz -f *.xz 2>/dev/null || :"], folder=self.tree / "modules", next_step="")

    def _make_host_key(self) -> str:
        (self.tree / "etc/dropbear").mkdir(parents=True, exist_ok=True)
        key = self.tree / "etc/dropbear/host_key"
        qemu: list[str | Path] = [self._emulator.folder / "qemu", "-cpu", "cortex-a72", "-L", self.tree]
        made = run_command(
            [*qemu, self.tree / "usr/bin/dropbearkey", "-t", "ed25519", "-f", key], next_step=""
        )
        return next(line for line in made.splitlines() if line.startswith("ssh-ed25519"))


@pytest.fixture(scope="module")
def board(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a board that has booted."""
    if not shutil.which(QEMU):
        pytest.fail(f"{QEMU} is missing: apt-get install --no-install-recommends qemu-system-arm")
    folder, port = tmp_path_factory.mktemp("board"), free_port()
    host_key = Builder(folder, emulator).build(make_key(folder / "key"))
    make_client(folder, port, host_key)
    command = [
        *(QEMU, "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "3G", "-nographic", "-no-reboot"),
        *("-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd")),
        *("-append", "console=ttyAMA0 rdinit=/init panic=-1"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]
    with (
        pytest.MonkeyPatch.context() as patch,
        (folder / "console.log").open("wb") as console,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console) as machine,
    ):
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        try:
            wait_for(url := f"ssh://root@127.0.0.1:{port}", machine, folder / "console.log")
            yield url
        finally:
            machine.kill()


def wait_for(url: str, machine: subprocess.Popen[bytes], console: Path) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and machine.poll() is None:
        try:
            with SshRunner(url) as runner:
                assert runner.board
        except ConnectionLostError:
            time.sleep(1)
        else:
            return
    pytest.fail(f"the board does not boot:\n{console.read_text(errors='replace')[-3000:]}")


def test_the_shipped_model_is_verified_there(
    board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    formats = ("--format", "tflite", "--format", "onnx")
    exported = run(capsys, "export", "resnet8", "--weights", "fashion-mnist", "-o", bundle, *formats)
    assert exported.code == 0, exported.err
    quantized = run(capsys, "quantize", bundle, "--recipe", "int8")
    assert quantized.code == 0, quantized.err
    runners = ("--runner", "local", "--runner", board, "--require", board)
    verified = run(capsys, "verify", bundle, *runners, "--data", "fashion-mnist", "--samples", 64)
    assert verified.code == 0, verified.out + verified.err


def test_it_is_a_board_of_its_own(board: str) -> None:
    with SshRunner(board) as runner:
        machine = runner.probe()
        assert runner.connection.run("uname -m").strip() == "aarch64"
    assert machine.cpu.endswith("Cortex-A72")
    assert machine.cores == 2
    assert not machine.emulated
