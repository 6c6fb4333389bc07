"""Where an agent runs, and how files get there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from resnet_edge.runners import agent
from resnet_edge.runners.agent_process import AgentProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Site(Protocol):
    """A place for agents."""

    where: str
    """What the user calls it."""

    pauses: tuple[float, ...]
    """Seconds to wait before each new try, after the connection was lost."""

    def start(self) -> AgentProcess:
        """A new agent.

        Raises:
            RunnerUnreachableError: It cannot be started.
        """
        ...

    def artifact(self, local: Path) -> str:
        """An artifact's path there, where it now is.

        Raises:
            RunnerUnreachableError: It cannot be copied.
        """
        ...

    def path(self, local: Path) -> str:
        """The path there of a file for a while; names are taken to be unique."""
        ...

    def push(self, local: Path) -> None:
        """Copy a file to its :meth:`path`.

        Raises:
            RunnerUnreachableError: It cannot be copied.
        """
        ...

    def pull(self, local: Path) -> None:
        """Copy it from there.

        Raises:
            RunnerUnreachableError: It cannot be copied.
        """
        ...


class SharedSite:
    """A Python on this machine, real or emulated: it sees the same files.

    Args:
        python: The command that starts it.
        where: What the user calls it.
        next_step: What to do if it does not answer.
        env: Its whole environment; None for this process's.
    """

    pauses: tuple[float, ...] = ()

    def __init__(
        self,
        python: Sequence[str],
        *,
        where: str,
        next_step: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.where = where
        self._argv, self._next_step, self._env = [*python, agent.__file__], next_step, env

    def start(self) -> AgentProcess:
        """A new agent."""
        return AgentProcess(self._argv, where=self.where, next_step=self._next_step, env=self._env)

    def artifact(self, local: Path) -> str:
        """The artifact's own path."""
        return str(local.absolute())

    def path(self, local: Path) -> str:
        """The file's own path."""
        return str(local)

    def push(self, local: Path) -> None:
        """Nothing to do."""

    def pull(self, local: Path) -> None:
        """Nothing to do."""
