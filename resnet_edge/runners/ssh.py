"""A board that is reached over SSH."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from resnet_edge.errors import DependencyMissingError, RunnerUnreachableError
from resnet_edge.runners import agent
from resnet_edge.runners.agent_engine import TIMEOUT, AgentEngine
from resnet_edge.runners.agent_process import AgentProcess
from resnet_edge.runners.machine import machine
from resnet_edge.runners.ssh_connection import SshConnection, Target
from resnet_edge.runners.timing import AgentTimer

if TYPE_CHECKING:
    from types import TracebackType

    from resnet_edge.runners import Load, Machine

PAUSES = (1.0, 3.0, 9.0)
"""Seconds before each new try, after the connection was lost."""

OLDEST_PYTHON = (3, 8)

_NEXT = "see that the board is on and in reach, then run it again: what was copied is kept"
_MARK = "resnet-edge-board:"
"""Before every line that is meant: a login shell may print its own."""

# Makes the folders, removes what broken-off runs have left and what nobody has used for a month; says where
# Python is.
_GREET = (
    'umask 077; d="${XDG_CACHE_HOME:-$HOME/.cache}/resnet-edge"; mkdir -p "$d/files" "$d/runs/$1" || exit 1; '
    'find "$d/runs" -mindepth 1 -maxdepth 1 -mtime +1 -exec rm -rf {} + 2>/dev/null; '
    'find "$d/files" -type f -mtime +30 -exec rm -f {} + 2>/dev/null; '
    'p="$d/venv/bin/python"; [ -x "$p" ] || p=$(command -v python3) || p=; '
    'v=; [ -z "$p" ] || v=$("$p" -c "import sys; print(*sys.version_info[:2])" 2>/dev/null); '
    'echo "$2$d"; echo "$2$p"; echo "$2$v"'
)


@dataclass(frozen=True, kw_only=True)
class Board:
    """What a board says of itself when it is first spoken to.

    Attributes:
        cache: Its folder for artifacts, the agent and the private environment.
        scratch: Its folder for the files of this run.
        python: The interpreter: the private environment's, else the system's.
    """

    cache: str
    scratch: str
    python: str


class SshRunner:
    """Runs artifacts on a board.

    Args:
        url: ``ssh://[USER@]HOST[:PORT]``.
        timeout: Seconds that any one request or copy may take.
        pauses: Seconds before each new try, after the connection was lost.

    Raises:
        UsageError: It is not such an address.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT, pauses: tuple[float, ...] = PAUSES) -> None:
        self.name = self.where = url
        self.pauses = pauses
        self.connection = SshConnection(Target.parse(url), where=url)
        self._timeout = timeout
        self._greeted: Board | None = None
        self._there: set[str] = set()

    @property
    def board(self) -> Board:
        """The board, spoken to.

        Raises:
            DependencyMissingError: It has no Python that the agent runs on.
            RunnerUnreachableError: It does not answer.
        """
        if self._greeted is None:
            token = secrets.token_hex(8)
            answer = self.connection.run(_GREET, token, _MARK)
            lines = [line.removeprefix(_MARK) for line in answer.splitlines() if line.startswith(_MARK)]
            if len(lines) != 3:
                raise RunnerUnreachableError(
                    "what answers is not a POSIX shell", where=self.name, found=answer[:200], next_step=_NEXT
                )
            cache, python, version = lines
            self._check_python(python, version)
            self._greeted = Board(cache=cache, scratch=f"{cache}/runs/{token}", python=python)
        return self._greeted

    def _check_python(self, python: str, version: str) -> None:
        numbers = tuple(int(number) for number in version.split())
        if numbers < OLDEST_PYTHON:
            raise DependencyMissingError(
                "the board has no Python that the agent runs on",
                where=self.name,
                found=f"{python or 'no python3'} {'.'.join(map(str, numbers))}".strip(),
                allowed=f"{'.'.join(map(str, OLDEST_PYTHON))} or newer",
                next_step="install it there (`apt-get install python3 python3-venv`)",
            )

    def start(self) -> AgentProcess:
        """A new agent on the board.

        Raises:
            DependencyMissingError: The board has no Python that it runs on.
            RunnerUnreachableError: The board does not answer.
        """
        script = self.artifact(Path(agent.__file__))
        argv = self.connection.argv(self.board.python, script)
        return AgentProcess(argv, where=self.where, next_step=_NEXT)

    def artifact(self, local: Path) -> str:
        """The path on the board of a file of this content, which is copied there if it is new."""
        with local.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        remote = f"{self.board.cache}/files/{digest}{local.suffix}"
        if remote not in self._there:
            if not self.connection.run('[ ! -f "$1" ] || { touch "$1"; echo there; }', remote):
                self._push(local, remote)
            self._there.add(remote)
        return remote

    def path(self, local: Path) -> str:
        """The path on the board of a file for a while."""
        return f"{self.board.scratch}/{local.name}"

    def push(self, local: Path) -> None:
        """Copy a file to its :meth:`path`."""
        self._push(local, self.path(local))

    def _push(self, local: Path, remote: str) -> None:
        partial = f"{self.board.scratch}/{secrets.token_hex(8)}.partial"
        self.connection.push(local, remote, partial=partial, timeout=self._timeout)

    def pull(self, local: Path) -> None:
        """Copy it from there."""
        self.connection.pull(self.path(local), local, timeout=self._timeout)

    def probe(self) -> Machine:
        """What the board is.

        Raises:
            DependencyMissingError: It has no Python that the agent runs on.
            RunnerUnreachableError: It does not answer.
        """
        with self.start() as process:
            return machine(process.request("probe", timeout=self._timeout))

    def open(self, load: Load) -> AgentEngine:
        """An artifact in its runtime there.

        Raises:
            DependencyMissingError: The runtime is not installed there.
            ModelRejectedError: The runtime does not accept the artifact.
            RunnerUnreachableError: The board does not answer, also when asked again.
        """
        return AgentEngine(self, load, timeout=self._timeout)

    def timer(self, load: Load) -> AgentTimer:
        """An artifact in a process of its own there; raises what :meth:`open` raises."""
        artifact = self.artifact(load.artifact)
        return AgentTimer(self.start(), load, artifact)

    def forget(self) -> None:
        """Ask the board anew what it is: it was changed."""
        self._leave()
        self._greeted = None

    def _leave(self) -> None:
        if self._greeted:
            with contextlib.suppress(RunnerUnreachableError):  # then the next run removes it
                self.connection.run('rm -rf "$1"', self._greeted.scratch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
