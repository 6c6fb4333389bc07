"""Where an artifact is executed: this machine, an emulated one, or a board; the other axis is the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from resnet_edge.engines import Engine, Kernels


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What executes.

    Attributes:
        system: ``Linux``.
        architecture: ``x86_64``, ``aarch64``.
        cpu: The processor's name.
        features: Instruction sets that kernels are chosen by, sorted.
        cores: Usable ones.
        memory: Bytes of RAM; None where it cannot be read.
        python: Version.
        libc: Name and version of the C library, which decides on the wheels that can be installed.
        packages: Versions of NumPy and the runtimes, by distribution.
        emulated: Whether times measured there say nothing about real hardware.
    """

    system: str
    architecture: str
    cpu: str
    features: tuple[str, ...] = ()
    cores: int = 1
    memory: int | None = None
    python: str = ""
    libc: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    emulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Load:
    """How an artifact is to be opened.

    Attributes:
        artifact: The file or folder, on this machine.
        format: Its converter's name.
        threads: Threads within an operator.
        kernels: What computes a .tflite.
    """

    artifact: Path
    format: str
    threads: int = 1
    kernels: Kernels = "xnnpack"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a processor's speed depends on; None where it cannot be read.

    Attributes:
        governor: What sets the clock: ``performance``, ``ondemand``, ...
        clock_mhz: Of the first core.
        temperature_c: Degrees Celsius, of the first thermal zone.
    """

    governor: str | None = None
    clock_mhz: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a process and the processor are doing.

    Attributes:
        peak_memory: Bytes; the largest resident set of the process so far.
        condition: Of the processor.
    """

    peak_memory: int
    condition: Condition = Condition()


class Timer(Protocol):
    """An artifact in a process of its own, ready to be timed."""

    load_ms: float
    """Milliseconds from the call of the runtime to a model that is ready to run."""
    batch: int
    """Images a run; 1 where the artifact takes any number."""

    def time(self, runs: int, *, warmup: int = 0) -> list[float]:
        """Milliseconds of each of so many runs of one batch of seeded inputs, after the warm-up."""
        ...

    def status(self) -> Status:
        """How the process and the processor are doing."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


class Runner(Protocol):
    """A machine; a context manager."""

    name: str
    """As the user wrote it: ``local``, ``qemu:cortex-a53``, ``ssh://pi@host``."""

    def probe(self) -> Machine:
        """What it is.

        Raises:
            RunnerUnreachableError: It does not answer.
        """
        ...

    def open(self, load: Load) -> Engine:
        """An artifact in its runtime there.

        Raises:
            DependencyMissingError: The runtime is not installed there.
            ModelRejectedError: The runtime does not accept the artifact.
            RunnerUnreachableError: It does not answer.
        """
        ...

    def timer(self, load: Load) -> Timer:
        """An artifact in a process of its own there; raises what :meth:`open` raises."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Unconnected:
    """What runners on this machine share: there is no connection to make or to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass
