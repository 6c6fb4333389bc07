"""Which runner a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import UsageError

if TYPE_CHECKING:
    from resnet_edge.runners import Runner


def open_runner(name: str) -> Runner:
    """The runner that a user calls by ``name``; not yet connected.

    Raises:
        UsageError: There is no such runner.
    """
    # Imported on use: whoever verifies on this machine needs none of the others.
    kind, _, rest = name.partition(":")
    if name == "local":
        from resnet_edge.runners.local import LocalRunner

        return LocalRunner()
    if kind == "qemu":
        from resnet_edge.runners.qemu import QemuRunner

        return QemuRunner(rest)
    if kind == "ssh":
        from resnet_edge.runners.ssh import SshRunner

        return SshRunner(name)
    raise UsageError(
        "there is no such runner",
        where=f"--runner {name}",
        allowed="local, qemu[:CPU], ssh://[USER@]HOST[:PORT]",
    )
