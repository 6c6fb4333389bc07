"""An emulated ARM processor on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.runners import Unconnected
from resnet_edge.runners.agent_engine import TIMEOUT, AgentEngine
from resnet_edge.runners.emulation.machine import emulated_site, find_emulator, known_cpu
from resnet_edge.runners.machine import machine
from resnet_edge.runners.timing import AgentTimer

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.runners import Load, Machine
    from resnet_edge.runners.sites import SharedSite


class QemuRunner(Unconnected):
    """Runs artifacts on an emulated processor.

    Args:
        cpu: Its name; empty for the default.
        cache: Where the emulated machine is; by default in the user's cache.
        timeout: Seconds that any one request may take.

    Raises:
        UsageError: There is no such processor.
    """

    def __init__(self, cpu: str = "", *, cache: Path | None = None, timeout: float = TIMEOUT) -> None:
        self._cpu, self._cache, self._timeout = known_cpu(cpu), cache, timeout
        self.name = f"qemu:{cpu}" if cpu else "qemu"

    def _site(self) -> SharedSite:
        return emulated_site(find_emulator(self._cache), self._cpu)

    def probe(self) -> Machine:
        """What is emulated; cores and memory are this machine's.

        Raises:
            RunnerUnreachableError: The emulated machine is not set up, or does not answer.
        """
        with self._site().start() as process:
            return machine(process.request("probe", timeout=self._timeout), emulated=True)

    def open(self, load: Load) -> AgentEngine:
        """An artifact in its runtime there.

        Raises:
            DependencyMissingError: The runtime is not installed there.
            ModelRejectedError: The runtime does not accept the artifact.
            RunnerUnreachableError: The emulated machine is not set up, or does not answer.
        """
        return AgentEngine(self._site(), load, timeout=self._timeout)

    def timer(self, load: Load) -> AgentTimer:
        """An artifact in a process of its own there; raises what :meth:`open` raises."""
        site = self._site()
        return AgentTimer(site.start(), load, site.artifact(load.artifact))
