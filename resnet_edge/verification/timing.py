"""Latencies of artifacts on every machine; one machine after the other, on each all artifacts in turns."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from resnet_edge.verification.latency import ROUNDS, measure_latency
from resnet_edge.verification.opening import lost, open_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resnet_edge.stages import Stages
    from resnet_edge.verification.opening import Connected, Place, Settings
    from resnet_edge.verification.report import Check, Latency

RUNS = 200
"""Of each artifact, about: enough for a 99th percentile that two runs decide."""

WARMUP = 5


def time_everywhere(
    machines: Sequence[Connected],
    places: Iterable[Place],
    settings: Settings,
    confidence: float,
    stages: Stages,
) -> tuple[dict[Place, Latency], list[Check]]:
    """Time artifacts where they ran; those that cannot be timed become verdicts.

    Args:
        machines: That answer.
        places: The artifacts, and where they ran.
        settings: How they are opened.
        confidence: Of the speed-ups' intervals.
        stages: Times the work.
    """
    times: dict[Place, Latency] = {}
    checks: list[Check] = []
    for machine in machines:
        mine = [place for place in places if place.runner == machine.runner.name]
        title = f"time {len(mine)} artifacts on {machine.runner.name}"
        with stages.stage(title, total=ROUNDS) as done, contextlib.ExitStack() as stack:
            timers, refused = open_each(
                lambda runner, load: runner.timer(load),
                [place.candidate for place in mine],
                [machine],
                settings,
            )
            for timer in timers.values():
                stack.callback(timer.close)
            floats = {
                place.candidate.format: place for place in timers if place.candidate.precision == "fp32"
            }
            found, silent = measure_latency(
                timers,
                baselines={place: floats.get(place.candidate.format, place) for place in timers},
                runs=RUNS,
                warmup=WARMUP,
                threads=settings.threads,
                confidence=confidence,
                emulated=machine.machine.emulated,
                progress=done,
            )
            times |= found
            checks += refused
            checks += [lost(place, error, settings.required) for place, error in silent.items()]
    return times, checks
