"""What an agent says of its machine, as a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from resnet_edge.runners import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

_X86_KERNELS = re.compile(r"(sse4_.|ssse3|avx.*|fma|f16c|amx_.*|gfni)")
"""Of the hundred flags of an x86 processor those by which the runtimes choose kernels."""


def machine(probed: Mapping[str, Any], *, emulated: bool = False) -> Machine:
    """The machine that an agent's ``probe`` describes."""
    board, cpu = str(probed["board"]), str(probed["cpu"])
    x86 = probed["machine"] in ("x86_64", "i686")
    return Machine(
        system=probed["system"],
        architecture=probed["machine"],
        cpu=f"{board}, {cpu}" if board else cpu,
        features=tuple(name for name in probed["features"] if not x86 or _X86_KERNELS.fullmatch(name)),
        cores=probed["cores"],
        memory=probed["memory"],
        python=probed["python"],
        libc=probed["libc"],
        packages=dict(probed["packages"]),
        emulated=emulated,
    )
