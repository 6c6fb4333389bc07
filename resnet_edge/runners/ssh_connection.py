"""Commands and files over SSH, by the system's own client, whose config, keys, agent and jump hosts count.

No password is ever asked for or taken, and the host's key must be known. Every value that reaches the remote
shell is quoted. Files go through ``cat``, which every board has, and are there once all of their bytes are.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from resnet_edge.errors import RunnerUnreachableError, UsageError
from resnet_edge.runners.agent_process import ConnectionLostError

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_TIMEOUT = 60.0
"""Seconds for a command that does next to nothing."""

_CONNECTION_FAILED = 255
"""Exit code of ``ssh`` where the connection, not the command, has failed."""

# Not a matter of trying again: what the client says, and what to do.
_HOPELESS = {
    "Host key verification failed": "if the key is right, log in once by hand (`ssh HOST`) and accept it; if "
    "the board was installed anew, remove its old key with `ssh-keygen -R HOST`",
    "Permission denied": "first see that `ssh HOST` logs in without asking: by a key, kept in an agent if it "
    "has a passphrase",
    "Too many authentication failures": "name the right key in the SSH configuration (IdentityFile)",
    "Could not resolve hostname": "check the name, or give the board's address",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A board's address.

    Attributes:
        host: Name or address, or an alias of the user's SSH configuration.
        user: Empty for the configuration's, or the own name.
        port: None for the configuration's, or 22.
    """

    host: str
    user: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, url: str) -> Target:
        """The address in ``ssh://[USER@]HOST[:PORT]``.

        Raises:
            UsageError: It is none, or holds a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", None, urlsplit("")
        # The client would take what begins with a dash for an option.
        sound = re.fullmatch(r"[A-Za-z0-9_:%.][A-Za-z0-9_:%.-]*", host) and re.fullmatch(
            r"([A-Za-z0-9_.][A-Za-z0-9_.-]*)?", parts.username or ""
        )
        if parts.scheme != "ssh" or not sound or parts.password is not None or parts.path.strip("/"):
            raise UsageError(
                "this is not the address of a board",
                found="an address with a password" if parts.password is not None else url,
                allowed="ssh://[USER@]HOST[:PORT]",
                next_step="keys and passwords belong to the SSH configuration and agent",
            )
        return cls(host=host, user=parts.username or "", port=port)


class SshConnection:
    """A board that commands can be run on; each is a connection of its own.

    Args:
        target: Its address.
        where: What the user calls it.
    """

    def __init__(self, target: Target, *, where: str) -> None:
        self._target, self._where = target, where

    def argv(self, *command: str) -> list[str]:
        """The local command that runs one there, its arguments quoted for the remote shell."""
        target = self._target
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "15",
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "3",
            "ForwardX11": "no",
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
            "RequestTTY": "no",
        }
        return [
            "ssh",
            *(f"-o{name}={value}" for name, value in options.items()),
            *(["-l", target.user] if target.user else []),
            *(["-p", str(target.port)] if target.port else []),
            "--",
            target.host,
            shlex.join(command),
        ]

    def run(
        self,
        script: str,
        *arguments: str,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        timeout: float = COMMAND_TIMEOUT,
    ) -> str:
        """Run a line of POSIX shell there, and return what it writes to standard output.

        Args:
            script: The line; the same for every call, for values come as ``arguments``.
            arguments: Its ``$1``, ``$2``, ...
            stdin: What it reads.
            stdout: Takes what it writes, in place of the answer.
            timeout: Seconds.

        Raises:
            ConnectionLostError: There is no connection; a new try may succeed.
            RunnerUnreachableError: Nor would a new try, or the command fails or takes longer.
        """
        try:
            done = subprocess.run(  # noqa: S603 - a list, never a shell
                self.argv("sh", "-c", script, "sh", *arguments),
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._error(f"no answer within {timeout:g} s", "") from error
        except OSError as error:
            raise self._error(
                "ssh cannot be started", error.strerror or "", "install OpenSSH's client"
            ) from error
        said = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode == _CONNECTION_FAILED:
            for sign, next_step in _HOPELESS.items():
                if sign in said:
                    raise self._error(
                        "there is no connection", said, next_step.replace("HOST", self._target.host)
                    )
            raise ConnectionLostError(
                "there is no connection",
                where=self._where,
                found=said,
                next_step="see that the board is on and in reach (`ssh -v`)",
            )
        if done.returncode:
            raise self._error("a command has failed there", said or f"exit code {done.returncode}")
        return "" if done.stdout is None else done.stdout.decode("utf-8", "replace")

    def _error(self, what: str, found: str, next_step: str = "") -> RunnerUnreachableError:
        return RunnerUnreachableError(
            what,
            where=self._where,
            found=found,
            next_step=next_step or f"look into it with `ssh {self._target.host}`",
        )

    def push(self, local: Path, remote: str, *, partial: str, timeout: float) -> None:
        """Copy a file there; at its place it is whole, or not at all.

        Args:
            local: The file.
            remote: Its place.
            partial: Where it grows, on the same file system; gone afterwards if the connection holds.
            timeout: Seconds.

        Raises:
            ConnectionLostError: The connection is lost; a new try may succeed.
            RunnerUnreachableError: It cannot be copied: the disk is full, ...
        """
        # To cat, a connection that is cut looks like the end of the file.
        script = 'if cat > "$2" && [ "$(wc -c < "$2")" -eq "$3" ]; then mv -f "$2" "$1"; '
        script += 'else rm -f "$2"; exit 1; fi'
        with local.open("rb") as stream:
            self.run(script, remote, partial, str(local.stat().st_size), stdin=stream, timeout=timeout)

    def pull(self, remote: str, local: Path, *, timeout: float) -> None:
        """Copy a file from there; the caller checks that it is whole.

        Raises:
            ConnectionLostError: The connection is lost; a new try may succeed.
            RunnerUnreachableError: It cannot be copied.
        """
        with local.open("wb") as stream:
            self.run('cat "$1"', remote, stdout=stream, timeout=timeout)
