from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from resnet_edge.errors import DependencyMissingError
from resnet_edge.runners.emulation.debian import host_distribution
from resnet_edge.runners.emulation.set_up import set_up
from resnet_edge.stages import Stages

if TYPE_CHECKING:
    from resnet_edge.runners.emulation.machine import Emulator


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    """The emulated ARM machine in the user's cache, made if need be; a skip is a failure under CI."""
    try:
        host_distribution()
    except DependencyMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{error.what}: {error.found}")
    return set_up(Stages())
