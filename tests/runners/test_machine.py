from __future__ import annotations

from typing import Any

import pytest

from resnet_edge.runners.machine import machine

PROBED: dict[str, Any] = {
    "system": "Linux",
    "machine": "aarch64",
    "board": "Raspberry Pi 5 Model B Rev 1.0",
    "cpu": "Cortex-A76",
    "features": ["asimd", "asimddp", "fp"],
    "cores": 4,
    "memory": 8 * 2**30,
    "python": "3.11.2",
    "libc": "glibc 2.36",
    "packages": {"numpy": "2.0"},
}


def test_a_board_is_called_by_its_name() -> None:
    described = machine(PROBED)
    assert described.cpu == "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76"
    assert described.features == ("asimd", "asimddp", "fp")
    assert machine({**PROBED, "board": ""}).cpu == "Cortex-A76"


@pytest.mark.parametrize(
    ("name", "kept"), [("avx512_vnni", True), ("fma", True), ("vmx", False), ("lm", False)]
)
def test_of_x86_flags_those_that_matter_are_kept(name: str, kept: bool) -> None:
    described = machine({**PROBED, "machine": "x86_64", "features": [name]})
    assert (name in described.features) == kept
