"""What an agent says of its machine, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_edge.runners import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping


def machine(probed: Mapping[str, Any], *, emulated: bool = False) -> Machine:
    """The machine that an agent's ``probe`` describes."""
    board, cpu = str(probed["board"]), str(probed["cpu"])
    return Machine(
        system=probed["system"],
        architecture=probed["machine"],
        cpu=f"{board}, {cpu}" if board else cpu,
        features=tuple(probed["features"]),
        cores=probed["cores"],
        memory=probed["memory"],
        python=probed["python"],
        libc=probed["libc"],
        packages=dict(probed["packages"]),
        emulated=emulated,
    )
