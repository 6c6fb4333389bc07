"""Brings the runtimes to a board, into an environment of its own, and tells which could be brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import DependencyMissingError, RunnerUnreachableError
from resnet_edge.runners.agent_process import ConnectionLostError
from resnet_edge.runners.wheels import RUNTIMES, Platform, host_versions, newest, pinned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.runners import Machine
    from resnet_edge.runners.ssh import SshRunner
    from resnet_edge.stages import Stages

INSTALL_TIMEOUT = 1800.0
"""Seconds for one package: a board on a slow line downloads 20 MB."""

# What an earlier, broken-off try has left is removed.
_MAKE_VENV = (
    '"$1/venv/bin/python" -m pip --version >/dev/null 2>&1 && exit 0; rm -rf "$1/venv"; '
    'python3 -m venv "$1/venv" || { rm -rf "$1/venv"; exit 1; }'
)
# Never from source: that takes hours on a board, and fails in the end.
_INSTALL = (
    '"$1/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check '
    '--only-binary=:all: "$2" >&2'
)


def set_up_board(runner: SshRunner, stages: Stages) -> dict[str, str]:
    """Install NumPy, LiteRT and ONNX Runtime on a board, in this machine's versions where there are wheels.

    Nothing outside of the user's cache folder there is touched. It can be repeated.

    Args:
        runner: The board.
        stages: Told what is going on.

    Returns:
        For each runtime that could not be installed, why.

    Raises:
        DependencyMissingError: The board has no Python that the agent runs on, cannot make an environment, or
            has no NumPy or none of the runtimes in the end.
        RunnerUnreachableError: The board does not answer.
    """
    cache, problems = runner.board.cache, {}
    with stages.stage("making a private environment"):
        try:
            runner.connection.run(_MAKE_VENV, cache, timeout=INSTALL_TIMEOUT)
        except ConnectionLostError:
            raise
        except RunnerUnreachableError as error:
            raise DependencyMissingError(
                "the board cannot make a virtual environment",
                where=runner.name,
                found=error.found,
                next_step="install the module there (`apt-get install python3-venv`), then run it again",
            ) from error
    for package in RUNTIMES:
        with stages.stage(f"installing {package}"):
            problem = _install(runner, cache, package)
            if problem:
                problems[package] = problem
    if "numpy" in problems or len(problems) == len(RUNTIMES) - 1:
        raise DependencyMissingError(
            "the board cannot run artifacts",
            where=runner.name,
            found="\n".join(f"{package}: {problem}" for package, problem in problems.items()),
            next_step=f"resnet-edge runners probe {runner.name}",
        )
    runner.forget()
    return problems


def _install(runner: SshRunner, cache: str, package: str) -> str:
    """Install a package, in this machine's version or else in another; why it cannot be, or nothing."""
    problem = ""
    for wanted in dict.fromkeys((pinned(package, host_versions()), package)):
        try:
            runner.connection.run(_INSTALL, cache, wanted, timeout=INSTALL_TIMEOUT)
        except ConnectionLostError:
            raise
        except RunnerUnreachableError as error:
            problem = error.found.splitlines()[-1] if error.found else error.what
        else:
            return ""
    return problem


def wheels_for(machine: Machine) -> Mapping[str, str | None]:
    """The runtimes that a machine lacks: the newest version with a wheel for it, or None.

    Raises:
        CommandFailedError: pip fails, for want of a network or otherwise.
    """
    lacking = [package for package in RUNTIMES if package not in machine.packages]
    library, _, release = machine.libc.partition(" ")
    if library != "glibc":
        return dict.fromkeys(lacking)  # such wheels as there are need glibc
    major, minor = (int(number) for number in release.split(".")[:2])
    python = ".".join(machine.python.split(".")[:2])
    platform = Platform(python=python, glibc=(major, minor), architecture=machine.architecture)
    return {package: newest(package, platform) for package in lacking}
