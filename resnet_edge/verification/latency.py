"""How long artifacts take on one machine, and how many times as fast as float32 they are.

All artifacts take turns, so that what slows the machine down for a while slows all of them down. Speed-ups
are compared within such rounds, and their intervals come from resampling whole rounds: runs of one turn are
alike, so that resampling single runs would promise too much.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from resnet_edge.errors import RunnerUnreachableError
from resnet_edge.verification.report import Latency, Ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from resnet_edge.runners import Status, Timer

Name = TypeVar("Name")
"""Whatever artifacts are told apart by."""

ROUNDS = 20
"""Turns of each artifact."""

_LONGEST_TURN_MS = 1000.0
"""Slow artifacts make fewer runs than they are asked for, but one a turn."""

_RESAMPLES = 2000


def measure_latency(
    timers: Mapping[Name, Timer],
    *,
    baselines: Mapping[Name, Name],
    runs: int,
    warmup: int,
    threads: int,
    confidence: float,
    emulated: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[dict[Name, Latency], dict[Name, RunnerUnreachableError]]:
    """Time artifacts against each other.

    Args:
        timers: By artifact; all on the same machine.
        baselines: By artifact the float32 one of the same format; those without one are left out.
        runs: Of each artifact, about; rounded up to whole turns.
        warmup: Runs before the first round. Besides, the first run of each turn is not counted: caches hold
            another artifact's data then, and threads of another runtime may still be spinning.
        threads: That the timers were opened with.
        confidence: Of the speed-ups' intervals.
        emulated: Whether the machine is, so that times say nothing about real hardware.
        progress: Is told how many of the ``ROUNDS`` are done.

    Returns:
        The latencies, and the artifacts whose process stopped answering, with what it said last.
    """
    turns: dict[Name, int] = {}
    rounds: dict[Name, list[list[float]]] = {name: [] for name in timers}
    lost: dict[Name, RunnerUnreachableError] = {}
    before: dict[Name, Status] = {}
    after: dict[Name, Status] = {}
    for name, timer in timers.items():
        with _losing(name, lost):
            turns[name] = _runs_a_turn(timer, runs, warmup)
            before[name] = timer.status()
    for number in range(ROUNDS):
        # Every other round runs backwards, so that no artifact always follows the same one.
        for name in [name for name in timers if name not in lost][:: 1 if number % 2 == 0 else -1]:
            with _losing(name, lost):
                rounds[name].append(timers[name].time(turns[name], warmup=1))
        progress(number + 1)
    for name in [name for name in timers if name not in lost]:
        with _losing(name, lost):
            after[name] = timers[name].status()
    times = {name: np.array(taken) for name, taken in rounds.items() if name not in lost}
    found = {
        name: _summary(
            timers[name],
            taken,
            before[name],
            after[name],
            warmup=warmup,
            threads=threads,
            speedup=_speedup(times, name, baselines.get(name, name), confidence),
            emulated=emulated,
        )
        for name, taken in times.items()
    }
    return found, lost


@contextlib.contextmanager
def _losing(name: Name, lost: dict[Name, RunnerUnreachableError]) -> Iterator[None]:
    """Give up an artifact whose process does not answer; the others go on."""
    try:
        yield
    except RunnerUnreachableError as error:
        lost[name] = error


def _runs_a_turn(timer: Timer, runs: int, warmup: int) -> int:
    """Warm up, and divide the runs among the rounds."""
    (once,) = timer.time(1, warmup=warmup)
    return max(1, min(math.ceil(runs / ROUNDS), int(_LONGEST_TURN_MS / once)))


def _summary(
    timer: Timer,
    times: NDArray[np.float64],
    before: Status,
    after: Status,
    *,
    warmup: int,
    threads: int,
    speedup: Ratio | None,
    emulated: bool,
) -> Latency:
    """Milliseconds (rounds, runs a turn) in figures."""
    median, p90, p99 = np.percentile(times, [50, 90, 99])
    return Latency(
        batch=timer.batch,
        threads=threads,
        warmup=warmup,
        runs=times.size,
        median_ms=float(median),
        p90_ms=float(p90),
        p99_ms=float(p99),
        load_ms=timer.load_ms,
        peak_memory=after.peak_memory,
        speedup=speedup,
        emulated=emulated,
        before=None if emulated else before.condition,
        after=None if emulated else after.condition,
    )


def _speedup(
    times: Mapping[Name, NDArray[np.float64]], name: Name, baseline: Name, confidence: float
) -> Ratio | None:
    """How many times as fast as the baseline; None where there is none, and for the baseline itself."""
    if baseline == name or baseline not in times:
        return None
    return compare(times[baseline], times[name], confidence)


def compare(slow: NDArray[np.float64], fast: NDArray[np.float64], confidence: float) -> Ratio:
    """The ratio of the medians, with the interval between percentiles of a seeded bootstrap over rounds.

    Args:
        slow: Milliseconds (rounds, runs a turn).
        fast: Of the same rounds; a turn may have another number of runs.
        confidence: Of the interval.
    """
    drawn = np.random.default_rng(0).integers(0, len(slow), (_RESAMPLES, len(slow)))
    medians = [np.median(times[drawn].reshape(_RESAMPLES, -1), axis=1) for times in (slow, fast)]
    low, high = np.quantile(medians[0] / medians[1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ratio(value=float(np.median(slow) / np.median(fast)), low=float(low), high=float(high))
