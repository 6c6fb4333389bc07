"""Help is instant: it imports no framework."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from resnet_edge.cli import cli

CONTEXT = click.Context(cli)
COMMANDS: list[tuple[str, ...]] = [(), *((name,) for name in cli.list_commands(CONTEXT))]

HEAVY = ("tensorflow", "keras", "onnxruntime", "onnx", "ai_edge_litert", "numpy", "rich")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys; sys.argv = ['resnet-edge', *sys.argv[1:], '--help']\n"
        "from resnet_edge.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage: resnet-edge" in result.stdout


def test_every_command_has_help_and_a_line_in_the_groups_list():
    for name in cli.list_commands(CONTEXT):
        command = cli.get_command(CONTEXT, name)
        assert command
        assert command.help
        assert command.short_help == cli._by_name[name][1]


def test_python_m():
    result = subprocess.run(
        [sys.executable, "-m", "resnet_edge", "--version"], capture_output=True, text=True, check=True
    )
    assert "0.1.0" in result.stdout
