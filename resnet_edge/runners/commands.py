"""Other programs, run to their end; what they say is kept for the error."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from resnet_edge.errors import DependencyMissingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TAIL = 1500
"""Characters of a failed program's output that an error shows."""


class CommandFailedError(DependencyMissingError):
    """A program that the set-up needs ended with an error."""


def run(
    argv: Sequence[str | Path],
    *,
    next_step: str,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a program, never through a shell, and return what it writes to standard output.

    Args:
        argv: The program and its arguments.
        next_step: What to do if it fails.
        env: Its whole environment; None for this process's.
        folder: Its working directory.

    Raises:
        CommandFailedError: It is not there, or ends with another code than 0.
    """
    try:
        done = subprocess.run(  # noqa: S603 - a list, never a shell
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if env is None else dict(env),
            cwd=folder,
            check=False,
        )
    except OSError as error:
        raise CommandFailedError(
            "a program that the set-up needs cannot be started",
            where=str(argv[0]),
            found=error.strerror or str(error),
            next_step=next_step,
        ) from error
    if done.returncode:
        raise CommandFailedError(
            "a program that the set-up needs has failed",
            where=" ".join(str(part) for part in argv[:4]),
            found=f"exit code {done.returncode}\n{(done.stderr or done.stdout).strip()[-_TAIL:]}",
            next_step=next_step,
        )
    return done.stdout
