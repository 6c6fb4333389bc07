"""The agent in a process of its own, here or through whatever the command leads to."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Any, Self

from resnet_edge.errors import (
    DependencyMissingError,
    ModelRejectedError,
    ResnetEdgeError,
    RunnerUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_TAIL_LINES = 12
_READ = 1 << 16
_PATIENCE = 5.0
"""Seconds that a process gets to end after it was told to."""


class ConnectionLostError(RunnerUnreachableError):
    """The agent or the way to it is gone; a new try may well succeed."""


class AgentProcess:
    """A started agent; a context manager. Requests are answered one after the other.

    Args:
        argv: The command, whose standard input and output are the agent's.
        where: What the user calls the machine, for errors.
        next_step: What to do if it does not answer.
        env: The process's whole environment; None for this one's.

    Raises:
        RunnerUnreachableError: The command cannot be started.
    """

    def __init__(
        self, argv: Sequence[str], *, where: str, next_step: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._where, self._next_step = where, next_step
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a list, never a shell
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                # Ctrl-C in the terminal is for this process, which then ends the agent.
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise self._unreachable("the agent cannot be started", f"{argv[0]}: {error.strerror}") from error
        self._selector = selectors.DefaultSelector()
        self._rest: dict[int, bytes] = {}
        for stream in (self._stdout, self._stderr):
            self._selector.register(stream, selectors.EVENT_READ)
            self._rest[stream.fileno()] = b""

    @property
    def _stdout(self) -> IO[bytes]:
        return _piped(self._process.stdout)

    @property
    def _stderr(self) -> IO[bytes]:
        return _piped(self._process.stderr)

    def request(self, do: str, *, timeout: float, **details: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer.

        Args:
            do: What; see :mod:`resnet_edge.runners.agent`.
            timeout: Seconds; an agent that takes longer is ended.
            details: The request's other fields.

        Raises:
            DependencyMissingError: The artifact's runtime is not installed there.
            ModelRejectedError: The runtime does not accept the artifact.
            RunnerUnreachableError: There is no answer in time, the process has ended, or the request failed.
        """
        try:
            _piped(self._process.stdin).write(json.dumps({"do": do, **details}).encode() + b"\n")
        except (OSError, ValueError) as error:  # the pipe is broken, or closed
            raise self._ended(do) from error
        answer = self._answer(do, timeout)
        if "error" in answer:
            raise self._error(do, answer["error"], str(details.get("artifact", "")))
        return answer

    def _answer(self, do: str, timeout: float) -> dict[str, Any]:
        line = self._line(do, time.monotonic() + timeout, timeout)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.kill()
            raise self._unreachable("what answers is not the agent", repr(line[:200]))
        return answer

    def _line(self, do: str, deadline: float, timeout: float) -> bytes:
        """The next line of standard output; standard error is read along, lest the process wait for that."""
        output = self._stdout.fileno()
        while b"\n" not in self._rest[output]:
            ready = self._selector.select(deadline - time.monotonic())
            if not ready:
                self.kill()
                raise self._unreachable(f"no answer to {do!r} within {timeout:g} s", self.stderr_tail())
            for key, _ in ready:
                if not self._read(key.fd) and key.fd == output:
                    raise self._ended(do)
        line, _, self._rest[output] = self._rest[output].partition(b"\n")
        return line

    def _read(self, descriptor: int) -> bool:
        """Take what there is; False at the end of the stream."""
        data = os.read(descriptor, _READ)
        if not data:
            self._selector.unregister(descriptor)
        self._rest[descriptor] += data
        if descriptor == self._stderr.fileno():
            *lines, self._rest[descriptor] = self._rest[descriptor].split(b"\n")
            self._tail.extend(lines)
        return bool(data)

    def stderr_tail(self) -> str:
        """The last lines that the process has written to standard error."""
        lines = [*self._tail, self._rest[self._stderr.fileno()]]
        return b"\n".join(lines).decode("utf-8", "replace").strip()

    def _ended(self, do: str) -> ConnectionLostError:
        """The error for a process that is no more, with its last words."""
        self.kill()
        error = self._stderr.fileno()
        while any(key.fd == error for key, _ in self._selector.select(0)) and self._read(error):
            pass
        code = self._process.returncode
        how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        return ConnectionLostError(
            f"the agent ended before it answered {do!r}",
            where=self._where,
            found=f"{how}\n{self.stderr_tail()}".strip(),
            next_step=self._next_step,
        )

    def _unreachable(self, what: str, found: str) -> RunnerUnreachableError:
        return RunnerUnreachableError(what, where=self._where, found=found, next_step=self._next_step)

    def _error(self, do: str, error: dict[str, str], artifact: str) -> ResnetEdgeError:
        """The error for an answer that is one."""
        found = f"{error['type']}: {error['what']}"
        match error["kind"]:
            case "runtime-missing":
                return DependencyMissingError(
                    f"{self._where} lacks the artifact's runtime",
                    where=artifact,
                    found=found,
                    next_step="pip install it"
                    if self._where == "local"
                    else f"resnet-edge runners setup {self._where}",
                )
            case "refused":
                return ModelRejectedError(
                    f"the runtime on {self._where} does not accept the artifact",
                    where=artifact,
                    found=found,
                    next_step="compare the versions with `resnet-edge runners probe`",
                )
            case _:
                return self._unreachable(f"the agent could not {do}", found)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process: it is told, and ended if that does not help."""
        with contextlib.suppress(OSError, ValueError):
            _piped(self._process.stdin).close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
        self._selector.close()
        self._stdout.close()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _piped(stream: IO[bytes] | None) -> IO[bytes]:
    """A stream that is a pipe, as all of them are here."""
    if stream is None:
        raise ValueError("the stream is not a pipe")
    return stream
