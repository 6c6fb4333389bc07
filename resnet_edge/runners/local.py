"""This machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from resnet_edge.converters import load_converter
from resnet_edge.runners import Unconnected, agent
from resnet_edge.runners.agent_process import AgentProcess
from resnet_edge.runners.machine import machine
from resnet_edge.runners.timing import AgentTimer

if TYPE_CHECKING:
    from resnet_edge.engines import Engine
    from resnet_edge.runners import Load, Machine


class LocalRunner(Unconnected):
    """Runs artifacts in this process."""

    name = "local"

    def probe(self) -> Machine:
        """What this machine is."""
        return machine(agent.probe())

    def open(self, load: Load) -> Engine:
        """An artifact in its runtime.

        Raises:
            DependencyMissingError: The runtime is not installed.
            ModelRejectedError: The runtime does not accept the artifact.
        """
        if load.format == "tflite":
            from resnet_edge.engines.tflite import TFLiteEngine

            return TFLiteEngine(load.artifact, threads=load.threads, kernels=load.kernels)
        return load_converter(load.format).open(load.artifact, threads=load.threads)

    def timer(self, load: Load) -> AgentTimer:
        """An artifact in a process of its own; raises what :meth:`open` raises."""
        # -P: the agent's folder must not come before the installed packages.
        process = AgentProcess(
            [sys.executable, "-P", agent.__file__],
            where=self.name,
            next_step="run it again; if it is out of memory, verify fewer artifacts at a time (--artifact)",
        )
        return AgentTimer(process, load, str(load.artifact))
