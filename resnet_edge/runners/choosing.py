"""Which runner a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import UsageError
from resnet_edge.runners.local import LocalRunner

if TYPE_CHECKING:
    from resnet_edge.runners import Runner


def open_runner(name: str) -> Runner:
    """The runner that a user calls by ``name``; not yet connected.

    Raises:
        UsageError: There is no such runner.
    """
    if name == "local":
        return LocalRunner()
    raise UsageError("there is no such runner", where=f"--runner {name}", allowed="local")
