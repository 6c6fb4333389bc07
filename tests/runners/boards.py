"""A board on the loopback address: a real sshd with throw-away keys, and a wire that can be cut."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from resnet_edge.runners.cache import cache_folder
from resnet_edge.runners.commands import run
from resnet_edge.runners.emulation import debian

USER = "pi"

_PACKAGES = ("openssh-server", "libwrap0", "libnss-wrapper")
"""The server, a library of its, and one that gives it other user accounts than the machine has."""


def server_files() -> Path:
    """The packages, unpacked into the cache without being installed."""
    folder = cache_folder() / "test-sshd"
    if not folder.exists():
        unpacked = folder.with_name(f"{folder.name}.{os.getpid()}")
        unpacked.mkdir(parents=True)
        distribution = debian.host_distribution()
        apt = debian.PrivateApt(unpacked / "apt", distribution, debian.host_sources(distribution))
        apt.update()
        for package in _PACKAGES:
            run(["dpkg-deb", "-x", apt.download(package), unpacked], next_step="")
        shutil.rmtree(unpacked / "apt")
        try:
            unpacked.rename(folder)
        except OSError:  # another test process was faster
            shutil.rmtree(unpacked)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(path: Path) -> str:
    """A new key pair; the public key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


def make_script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def make_client(folder: Path, port: int, host_key: str) -> None:
    """What a user has in ~/.ssh, with ``key`` in the folder; a wrapper named ssh points the client at it."""
    kind, key = host_key.split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder / 'key'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  GlobalKnownHostsFile /dev/null\n"
        f"Host board\n  HostName 127.0.0.1\n  Port {port}\n"
    )
    make_script(folder / "ssh", f'exec {shutil.which("ssh")} -F {folder / "config"} "$@"')


class Wire:
    """Forwards a port to another; what goes through can be cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.bytes_sent = 0
        self._budget: int | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut all connections; new ones are served."""
        with self._lock:
            for end in self._open:
                # Linger 0: the peers see a reset, not a polite end.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.close()
            self._open.clear()

    def cut_after(self, sent: int) -> None:
        """Cut all connections once so many more bytes have gone to the board."""
        self._budget = sent

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open += [near, far]
            for source, sink, out in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, out), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, out: bool) -> None:
        try:
            while data := source.recv(4096):
                sink.sendall(data)
                if out:
                    self._count(len(data))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _count(self, sent: int) -> None:
        self.bytes_sent += sent
        if self._budget is not None:
            self._budget -= sent
            if self._budget <= 0:
                self._budget = None
                self.cut()


@dataclass(kw_only=True)
class LoopbackBoard:
    """A running sshd, and a client set up for it; a context manager.

    Attributes:
        folder: For everything; the board's home is in it.
        python: The command that is the board's ``python3``.
    """

    folder: Path
    python: list[str]

    def __enter__(self) -> Self:
        self.home = self.folder / "home"
        for name in ("home", "bin", "client", "etc"):
            (self.folder / name).mkdir(parents=True)
        self.set_python(*self.python)
        (self.folder / "etc/authorized_keys").write_text(make_key(self.folder / "client/key"))
        self._host_key = make_key(self.folder / "etc/host_key")
        self._port = free_port()
        (self.folder / "etc/sshd_config").write_text(self._settings())
        self._server = subprocess.Popen(
            [str(server_files() / "usr/sbin/sshd"), "-D", "-e", "-f", str(self.folder / "etc/sshd_config")],
            env={**os.environ, **self._accounts()},
            stdin=subprocess.DEVNULL,
            stderr=(self.folder / "sshd.log").open("wb"),
        )
        self._wait()
        self.wire = Wire(self._port)
        make_client(self.folder / "client", self.wire.port, self._host_key)
        return self

    def _settings(self) -> str:
        etc = self.folder / "etc"
        return "\n".join(
            [
                f"Port {self._port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {etc / 'host_key'}",
                f"AuthorizedKeysFile {etc / 'authorized_keys'}",
                f"PidFile {etc / 'pid'}",
                "StrictModes no",
                "UsePAM no",
                "PasswordAuthentication no",
                "PermitRootLogin prohibit-password",
                f"SetEnv PATH={self.folder / 'bin'}:/usr/bin:/bin",
                "",
            ]
        )

    def _accounts(self) -> dict[str, str]:
        """The environment in which the server knows the board's user, and an unprivileged one for itself."""
        passwd, group = self.folder / "etc/passwd", self.folder / "etc/group"
        passwd.write_text(
            f"{USER}:x:{os.getuid()}:{os.getgid()}::{self.home}:/bin/sh\n"
            "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        group.write_text(f"{USER}:x:{os.getgid()}:\nnogroup:x:65534:\n")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it puts the process that speaks to strangers
        (libraries,) = {path.parent for path in server_files().glob("usr/lib/*/libnss_wrapper.so")}
        return {
            "LD_LIBRARY_PATH": str(libraries),
            "LD_PRELOAD": str(libraries / "libnss_wrapper.so"),
            "NSS_WRAPPER_PASSWD": str(passwd),
            "NSS_WRAPPER_GROUP": str(group),
        }

    @property
    def server_pid(self) -> int:
        return self._server.pid

    @property
    def url(self) -> str:
        return f"ssh://{USER}@127.0.0.1:{self.wire.port}"

    @property
    def path(self) -> str:
        """The search path on which the user's ssh comes first."""
        return f"{self.folder / 'client'}:{os.environ['PATH']}"

    def set_python(self, *command: str) -> None:
        """Change what the board's python3 is; none removes it."""
        program = self.folder / "bin/python3"
        program.unlink(missing_ok=True)
        if command:
            make_script(program, f'{" ".join(command)} "$@"')

    def change_host_key(self) -> None:
        """Make the client expect another key than the board has."""
        other = make_key(self.folder / "etc/other_key").split()[1]
        known = self.folder / "client/known_hosts"
        name, kind, _ = known.read_text().split()
        known.write_text(f"{name} {kind} {other}\n")

    def forget_host_key(self) -> None:
        (self.folder / "client/known_hosts").write_text("")

    def files(self) -> list[str]:
        """What resnet-edge keeps on the board."""
        cache = self.home / ".cache/resnet-edge"
        return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())

    def log(self) -> str:
        return (self.folder / "sshd.log").read_text(errors="replace")

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"sshd does not start: {self.log()}")

    def __exit__(self, *_: object) -> None:
        self.wire.close()
        self._server.send_signal(signal.SIGTERM)
        self._server.wait()


HOST_PYTHON = [sys.executable, "-s"]
"""A board whose Python is this one."""
