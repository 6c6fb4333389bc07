"""Latency on timers whose times are known, and on a real process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.converters import ConversionSettings, load_converter
from resnet_edge.errors import ModelRejectedError, RunnerUnreachableError
from resnet_edge.runners import Condition, Load, Status
from resnet_edge.runners.local import LocalRunner
from resnet_edge.verification.latency import ROUNDS, compare, measure_latency
from tests.graphs import OPERATOR_GRAPHS

if TYPE_CHECKING:
    from collections.abc import Iterator


class KnownTimer:
    """Takes a given time; the first runs after a while and after another artifact are slow."""

    load_ms = 12.0
    batch = 4

    def __init__(self, name: str, milliseconds: float, log: list[str], noise: Iterator[float]) -> None:
        self.name, self.milliseconds, self.log, self.noise = name, milliseconds, log, noise
        self.runs = 0

    def time(self, runs: int, *, warmup: int = 0) -> list[float]:
        self.log.append(self.name)
        self.runs += runs + warmup
        cold = 0 if warmup else 100 * self.milliseconds
        return [cold + self.milliseconds * next(self.noise) for _ in range(runs)]

    def status(self) -> Status:
        return Status(peak_memory=1000 + self.runs, condition=Condition(clock_mhz=1500.0 + self.runs))

    def close(self) -> None:
        """Nothing to end."""


def steady() -> Iterator[float]:
    while True:
        yield 1.0


def drifting(seed: int) -> Iterator[float]:
    """Log-normal noise of 10 % on each run."""
    random = np.random.default_rng(seed)
    while True:
        yield float(np.exp(random.normal(0, 0.1)))


def measure(timers, *, runs=100, warmup=7, **options):
    settings = {
        "baselines": {"int8": "fp32", "lonely": "absent"},
        "threads": 2,
        "confidence": 0.95,
        **options,
    }
    found, lost = measure_latency(timers, runs=runs, warmup=warmup, **settings)
    assert not lost
    return found


def test_artifacts_take_turns_in_alternating_order_and_cold_runs_do_not_count():
    log: list[str] = []
    timers = {
        name: KnownTimer(name, each, log, steady())
        for name, each in (("fp32", 6.0), ("int8", 2.0), ("lonely", 3.0))
    }
    done: list[int] = []
    found = measure(timers, emulated=True, progress=done.append)
    assert log[3:9] == ["fp32", "int8", "lonely", "lonely", "int8", "fp32"]
    assert done == list(range(1, ROUNDS + 1))
    int8 = found["int8"]
    assert (int8.median_ms, int8.p90_ms, int8.p99_ms) == pytest.approx((2, 2, 2))
    assert (int8.runs, int8.warmup, int8.threads, int8.batch) == (100, 7, 2, 4)
    assert (int8.load_ms, int8.emulated) == (12, True)
    assert int8.peak_memory == 1000 + timers["int8"].runs, "of the whole run"
    assert int8.speedup is not None
    assert (int8.speedup.value, int8.speedup.low, int8.speedup.high) == pytest.approx((3, 3, 3))
    assert found["fp32"].speedup is None
    assert found["lonely"].speedup is None, "its baseline was not measured"


def test_percentiles_are_of_all_runs():
    log: list[str] = []
    found = measure({"fp32": KnownTimer("fp32", 1.0, log, iter(range(1, 1000)))}, runs=200)["fp32"]
    # The first is used up by the warm-up.
    counted = np.arange(2, 202)
    assert (found.median_ms, found.p90_ms, found.p99_ms) == pytest.approx(
        tuple(np.percentile(counted, [50, 90, 99]))
    )


def test_slow_artifacts_run_once_a_turn():
    slow = KnownTimer("fp32", 5000.0, [], steady())
    assert measure({"fp32": slow}, runs=1000)["fp32"].runs == ROUNDS


def test_the_speedups_interval_covers_the_true_ratio():
    random = np.random.default_rng(5)
    covered = []
    for _ in range(100):
        # Both are slowed down by what the machine does in a round, and vary from turn to turn and run to run.
        round_noise = random.normal(0, 0.2, (ROUNDS, 1))
        slow, fast = (
            each
            * np.exp(round_noise + random.normal(0, 0.05, (ROUNDS, 1)) + random.normal(0, 0.05, (ROUNDS, 5)))
            for each in (4.0, 2.0)
        )
        ratio = compare(slow, fast, 0.95)
        covered.append(ratio.low <= 2 <= ratio.high)
    # The percentile bootstrap of twenty rounds is known to be a few points short of its confidence, and 100
    # trials have a standard error of 2.2 points.
    assert np.mean(covered) >= 0.95 - 0.03 - 0.045


def test_a_difference_between_rounds_only_does_not_widen_the_interval():
    levels = np.exp(np.random.default_rng(1).normal(0, 0.5, (ROUNDS, 1))) * np.ones((1, 5))
    ratio = compare(3 * levels, levels, 0.95)
    assert (ratio.low, ratio.high) == pytest.approx((3, 3))


def test_a_real_artifact_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "block.onnx"
    graph = OPERATOR_GRAPHS["residual_block"]
    load_converter("onnx").convert(graph, path, ConversionSettings(batch=3, onnx_layout="nhwc"))
    with LocalRunner() as runner:
        timer = runner.timer(Load(artifact=path, format="onnx"))
        try:
            found = measure({"block": timer}, runs=20, warmup=2)["block"]
        finally:
            timer.close()
    assert found.batch == 3
    assert 0 < found.median_ms <= found.p90_ms <= found.p99_ms
    assert found.load_ms > 0
    # NumPy and a runtime take some tens of megabytes, this model next to nothing.
    assert 10e6 < found.peak_memory < 2e9


def test_a_file_that_the_runtime_refuses_leaves_no_process(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with LocalRunner() as runner, pytest.raises(ModelRejectedError):
        runner.timer(Load(artifact=path, format="onnx"))


def test_a_process_that_ends_costs_its_own_latency_only():
    class Ending(KnownTimer):
        def time(self, runs: int, *, warmup: int = 0) -> list[float]:
            if self.runs > 20:
                raise RunnerUnreachableError("the agent ended")
            return super().time(runs, warmup=warmup)

    timers: dict[str, KnownTimer] = {
        "lasting": KnownTimer("lasting", 2.0, [], steady()),
        "ending": Ending("ending", 1.0, [], steady()),
    }
    baselines = {"lasting": "ending"}
    found, lost = measure_latency(timers, baselines=baselines, runs=100, warmup=2, threads=1, confidence=0.95)
    assert list(found) == ["lasting"]
    assert found["lasting"].median_ms == 2.0
    assert found["lasting"].speedup is None
    assert list(lost) == ["ending"]


def test_the_processors_condition_is_told_but_not_an_emulators():
    timers = {"one": KnownTimer("one", 2.0, [], steady())}
    before, after = (getattr(measure(timers)["one"], when) for when in ("before", "after"))
    assert before.clock_mhz < after.clock_mhz
    emulated = measure({"one": KnownTimer("one", 2.0, [], steady())}, emulated=True)["one"]
    assert (emulated.before, emulated.after) == (None, None)
