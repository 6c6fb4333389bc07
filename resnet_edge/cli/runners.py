"""``resnet-edge runners``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from resnet_edge import stopping
from resnet_edge.cli.display import progress, warn
from resnet_edge.cli.options import json_option
from resnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.runners import Machine, Runner

_RUNNER = "local|qemu[:CPU]|ssh://[USER@]HOST[:PORT]"


@click.group("runners", short_help="List, set up and probe the machines that artifacts run on.")
def command() -> None:
    """List, set up and probe the machines that artifacts run on: this one, emulated ARM, boards over SSH."""


@command.command("list", short_help="What there is to run on.")
@json_option
def list_(as_json: bool) -> None:
    """Show what there is to run on, and whether it is set up."""
    # Imported on use, here and below: --help needs none of it.
    from resnet_edge.errors import RunnerUnreachableError
    from resnet_edge.runners.emulation.machine import CPUS, find_emulator

    try:
        emulator, state = find_emulator(), "ready"
    except RunnerUnreachableError as error:
        emulator, state = None, f"{error.what}: {error.next_step}"
    runners = {"local": "ready", **{f"qemu:{cpu}": state for cpu in CPUS}}
    if as_json:
        folder = str(emulator.folder) if emulator else None
        click.echo(json.dumps({"runners": runners, "emulator": folder}, indent=2))
        return
    runners["ssh://[USER@]HOST[:PORT]"] = "any board with Python 3.8 or newer"
    for name, text in runners.items():
        click.echo(f"{name:<26}{text}")


@command.command("setup", short_help="Make a runner ready.")
@click.argument("name", metavar="qemu|ssh://[USER@]HOST[:PORT]")
@click.option("--again", is_flag=True, help="Make the emulated machine anew.")
@json_option
def setup(name: str, again: bool, as_json: bool) -> None:
    """Make a runner ready: everything goes into the user's cache folder, here or on the board.

    qemu: an emulator and a Python with LiteRT and ONNX Runtime for 64-bit ARM, some 250 MB, from the packages
    of this Debian or Ubuntu, without root. A set-up that was broken off goes on where it stopped. At the end
    models are run on every emulated processor, and must give what they give here.

    ssh://...: the same runtimes in a virtual environment on the board.
    """
    from resnet_edge.runners.choosing import open_runner
    from resnet_edge.runners.ssh import SshRunner

    runner = open_runner(name)
    if name == "local":
        raise UsageError("there is nothing to set up on this machine", allowed="qemu, or ssh://HOST")
    problems: dict[str, str] = {}
    # Not "the same command": --again would begin anew.
    kept = f"what is done is kept, and resnet-edge runners setup {name} will go on from there"
    with stopping.keeping(lambda: kept), progress(enabled=not as_json) as stages:
        if isinstance(runner, SshRunner):
            from resnet_edge.runners.board_setup import set_up_board

            with runner:
                problems = set_up_board(runner, stages)
        else:
            from resnet_edge.runners.emulation.set_up import remove, set_up

            if again:
                remove()
            set_up(stages)
    for package, problem in problems.items():
        warn(f"{package} could not be installed on {name}: {problem}")
    if as_json:
        document = {"runner": name, "not_installed": problems, "seconds": stages.seconds}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{name} is ready: resnet-edge verify ... --runner {name}")


@command.command("probe", short_help="What a runner is, and which runtimes it has.")
@click.argument("name", metavar=_RUNNER)
@json_option
def probe(name: str, as_json: bool) -> None:
    """Show what a runner is: processor, features, memory, Python, and which runtimes are there.

    Where a runtime is missing on a board, also whether there is a wheel that could be installed.
    """
    from resnet_edge.runners.choosing import open_runner

    with open_runner(name) as runner:
        machine = runner.probe()
    wheels = _wheels(runner, machine)
    if as_json:
        click.echo(json.dumps({"runner": name, **asdict(machine), "wheels": wheels}, indent=2))
        return
    memory = f"{machine.memory / 2**20:,.0f} MB" if machine.memory else "unknown"
    lines = {
        "machine": f"{machine.system} {machine.architecture}{', emulated' if machine.emulated else ''}",
        "processor": machine.cpu,
        "features": " ".join(machine.features),
        "cores, memory": f"{machine.cores}, {memory}",
        "Python": f"{machine.python}, {machine.libc or 'unknown C library'}",
        **machine.packages,
        **{package: _offer(name, wheel) for package, wheel in wheels.items()},
    }
    for label, text in lines.items():
        click.echo(f"{label:<16}{text}")


def _wheels(runner: Runner, machine: Machine) -> Mapping[str, Any]:
    """For the runtimes that a board lacks, the version of a wheel, or None."""
    from resnet_edge.runners.ssh import SshRunner

    if not isinstance(runner, SshRunner):
        return {}
    from resnet_edge.runners.board_setup import wheels_for
    from resnet_edge.runners.commands import CommandFailedError

    try:
        return wheels_for(machine)
    except CommandFailedError as error:
        warn(f"which wheels there are cannot be looked up: {error.found.splitlines()[-1]}")
        return {}


def _offer(name: str, wheel: str | None) -> str:
    if wheel is None:
        return "not installed, and there is no wheel for this Python and system"
    return f"not installed; {wheel} can be: resnet-edge runners setup {name}"
