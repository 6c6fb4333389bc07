"""An artifact timed by an agent: a process that does nothing else, here or on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.runners import Condition, Status

if TYPE_CHECKING:
    from resnet_edge.runners import Load
    from resnet_edge.runners.agent_process import AgentProcess

PATIENCE = 600.0
"""Seconds for one request: opening a large model, or one turn of a slow one in an emulator."""


class AgentTimer:
    """A :class:`~resnet_edge.runners.Timer` that is an agent.

    Args:
        agent: A started agent, which the timer takes over: it is closed with it, and if opening fails.
        load: How the artifact is to be opened.
        artifact: Where the artifact is on the agent's machine.

    Attributes:
        load_ms: Milliseconds from the call of the runtime to a model that is ready to run.
        batch: Images a run; 1 where the artifact takes any number.

    Raises:
        DependencyMissingError: The runtime is not installed there.
        ModelRejectedError: The runtime does not accept the artifact.
        RunnerUnreachableError: The agent does not answer.
    """

    def __init__(self, agent: AgentProcess, load: Load, artifact: str) -> None:
        self._agent = agent
        try:
            opened = agent.request(
                "open",
                timeout=PATIENCE,
                artifact=artifact,
                format=load.format,
                threads=load.threads,
                kernels=load.kernels,
            )
        except BaseException:
            agent.close()
            raise
        self.load_ms = float(opened["load_ms"])
        self.batch = int(opened["inputs"][0]["shape"][0] or 1)

    def time(self, runs: int, *, warmup: int = 0) -> list[float]:
        """Milliseconds of each of so many runs of one batch of seeded inputs, after the warm-up.

        Raises:
            RunnerUnreachableError: The agent does not answer.
        """
        answer = self._agent.request("time", timeout=PATIENCE, runs=runs, warmup=warmup)
        return [float(value) for value in answer["milliseconds"]]

    def status(self) -> Status:
        """How the process and the processor are doing.

        Raises:
            RunnerUnreachableError: The agent does not answer.
        """
        answer = self._agent.request("status", timeout=PATIENCE)
        return Status(
            peak_memory=int(answer["peak_memory"]),
            condition=Condition(
                governor=answer["governor"],
                clock_mhz=answer["clock_mhz"],
                temperature_c=answer["temperature_c"],
            ),
        )

    def close(self) -> None:
        """End the process."""
        self._agent.close()
