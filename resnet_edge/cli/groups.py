"""A command group that imports a command's module only when that command is run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class LazyGroup(click.Group):
    """A group whose commands are known by name and one line of help, and imported on use.

    Args:
        commands_by_name: For each command the module that holds it, as an attribute named ``command``, and
            its line in the group's help.
    """

    def __init__(
        self, *args: Any, commands_by_name: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._by_name = dict(commands_by_name or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are used."""
        return [*super().list_commands(ctx), *self._by_name]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in self._by_name:
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module(self._by_name[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._by_name[name][1]) for name in self._by_name])
