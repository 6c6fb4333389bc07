"""Intervals cover what they say, and gates let through no more than they say."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats

from resnet_edge.verification.intervals import (
    POWER,
    agreement_verdict,
    drop_bounds,
    drop_score,
    non_inferior,
    paired_drop,
    wilson,
)

CONFIDENCE = 0.95
TRIALS = 20_000
ERROR = 3 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / TRIALS)
"""Three standard errors of a simulated rate: 0.5 percentage points."""

WORST = float(np.exp(-(stats.norm.ppf(CONFIDENCE) ** 2)))
"""6.7 %: a score test's rate of false passes where only "none lost" passes, which is its worst case."""

SETTINGS = list(product((200, 1_000, 10_000), (0.002, 0.01, 0.03), (0.5, 0.8, 1.0)))
"""Images, share of images lost or won, and the share of those that is lost."""


def draw(images: int, lost_rate: float, won_rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of counts (lost, won) that came up, and how often each did."""
    random = np.random.default_rng(7)
    counts = random.multinomial(images, [lost_rate, won_rate, 1 - lost_rate - won_rate], TRIALS)
    pairs, often = np.unique(counts[:, :2], axis=0, return_counts=True)
    return pairs[:, 0].astype(np.float64), pairs[:, 1].astype(np.float64), often


@cache
def coverage(images: int, changed: float, share: float) -> float:
    """How often the two-sided interval holds the true drop."""
    lost_rate, won_rate = changed * share, changed * (1 - share)
    lost, won, often = draw(images, lost_rate, won_rate)
    low, high = drop_bounds(lost, won, images, (1 + CONFIDENCE) / 2)
    inside = (low <= lost_rate - won_rate) & (lost_rate - won_rate <= high)
    return float(np.average(inside, weights=often))


@cache
def false_passes(images: int, changed: float, share: float) -> float:
    """How often a limit is passed that the true drop lies exactly on, by the gate's own decision."""
    lost_rate, won_rate = changed * share, changed * (1 - share)
    lost, won, often = draw(images, lost_rate, won_rate)
    limit = 100 * (lost_rate - won_rate)
    passes = [
        non_inferior(int(losses), int(wins), images, limit, CONFIDENCE)[0] == "pass"
        for losses, wins in zip(lost, won, strict=True)
    ]
    return float(np.average(passes, weights=often))


@pytest.mark.parametrize(("images", "changed", "share"), SETTINGS)
def test_the_interval_of_a_drop_covers_the_true_drop(images, changed, share):
    # Few counts are possible where hardly any image changes, so the rate jumps: by up to 2 points here.
    assert coverage(images, changed, share) >= CONFIDENCE - 0.02 - ERROR


def test_over_all_settings_the_interval_covers_at_least_what_it_says():
    assert np.mean([coverage(*setting) for setting in SETTINGS]) >= CONFIDENCE


@pytest.mark.parametrize(("images", "changed", "share"), SETTINGS)
def test_a_drop_at_the_limit_seldom_passes(images, changed, share):
    assert false_passes(images, changed, share) <= WORST + ERROR


def test_over_all_settings_a_drop_at_the_limit_passes_no_more_often_than_agreed():
    assert np.mean([false_passes(*setting) for setting in SETTINGS]) <= 1 - CONFIDENCE


@pytest.mark.parametrize(("images", "minimum"), list(product((200, 1_000, 10_000), (0.9, 0.97, 0.995))))
def test_an_agreement_at_the_limit_seldom_passes(images, minimum):
    counts, weights = np.unique(
        np.random.default_rng(3).binomial(images, minimum, TRIALS), return_counts=True
    )
    verdicts = [agreement_verdict(int(count), images, minimum, CONFIDENCE)[0] for count in counts]
    passed = (
        sum(weight for weight, verdict in zip(weights, verdicts, strict=True) if verdict == "pass") / TRIALS
    )
    assert passed <= WORST + ERROR


def score_by_optimization(lost: int, won: int, images: int, drop: float) -> float:
    """Tango's statistic with its nuisance rate found by a general optimizer."""
    same = images - lost - won

    def surprise(won_rate: float) -> float:
        rates = np.array([won_rate + drop, won_rate, 1 - 2 * won_rate - drop])
        return -float(np.sum(np.array([lost, won, same]) * np.log(np.maximum(rates, 1e-300))))

    found = optimize.minimize_scalar(
        surprise, bounds=(max(0, -drop), (1 - drop) / 2), method="bounded", options={"xatol": 1e-13}
    )
    return (lost - won - images * drop) / math.sqrt(images * (2 * found.x + drop - drop**2))


@pytest.mark.parametrize(("lost", "won", "images"), [(9, 4, 500), (0, 3, 200), (31, 31, 1000), (40, 2, 300)])
@pytest.mark.parametrize("drop", [-0.03, 0.004, 0.02])
def test_the_statistic_is_the_constrained_maximum_likelihood_one(lost, won, images, drop):
    ours = drop_score(np.asarray(float(lost)), np.asarray(float(won)), images, np.asarray(drop))
    # The optimizer finds a flat maximum to about the root of the float64 resolution.
    assert ours == pytest.approx(score_by_optimization(lost, won, images, drop), rel=1e-5)


def test_decisions_agree_with_the_bounds():
    for lost, won, images, limit in product(
        (0, 3, 20, 60), (0, 3, 20, 60), (200, 1000), (0.0, 0.5, 2.0, 8.0)
    ):
        low, high = (100 * float(bound) for bound in drop_bounds(lost, won, images, CONFIDENCE))
        verdict, _ = non_inferior(lost, won, images, limit, CONFIDENCE)
        expected = "pass" if high <= limit else "fail" if low > limit else "inconclusive"
        assert verdict == expected, (lost, won, images, limit, low, high)


def test_agreement_is_decided_by_wilsons_bounds():
    for agree, minimum in product((900, 985, 990, 995, 1000), (0.9, 0.985, 0.99)):
        interval = stats.binomtest(agree, 1000).proportion_ci(2 * CONFIDENCE - 1, method="wilson")
        expected = (
            "pass" if interval.low >= minimum else "fail" if interval.high < minimum else "inconclusive"
        )
        assert agreement_verdict(agree, 1000, minimum, CONFIDENCE)[0] == expected


@pytest.mark.parametrize(
    ("lost", "won", "images", "limit"), [(3, 1, 500, 1.0), (9, 2, 500, 1.0), (20, 15, 2000, 0.6)]
)
def test_the_images_asked_for_decide_as_surely_as_they_say(lost, won, images, limit):
    verdict, more = non_inferior(lost, won, images, limit, CONFIDENCE)
    assert verdict == "inconclusive"
    assert more is not None
    expected = "pass" if 100 * (lost - won) / images < limit else "fail"
    for factor, low, high in ((1, POWER, 1.0), (1 / 3, 0.0, POWER)):
        new = round(more * factor)
        rates = [lost / images, won / images, 1 - (lost + won) / images]
        counts = np.random.default_rng(5).multinomial(new, rates, 2000)[:, :2] + (lost, won)
        total = images + new
        decided = [non_inferior(int(a), int(b), total, limit, CONFIDENCE)[0] == expected for a, b in counts]
        # Three standard errors of the rate: 2.7 points. The images that one has already vary no more, so that
        # the true power is somewhat above what is promised.
        assert low - 0.027 <= np.mean(decided) <= high


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (non_inferior(0, 0, 1000, 0.0, CONFIDENCE), ("inconclusive", None)),  # no number shows "not at all"
        (non_inferior(10, 5, 1000, 0.5, CONFIDENCE), ("inconclusive", None)),  # exactly at the limit
        (non_inferior(0, 0, 1000, 0.5, CONFIDENCE), ("pass", None)),
        (non_inferior(50, 0, 1000, 0.5, CONFIDENCE), ("fail", None)),
        (agreement_verdict(100, 100, 1.0, CONFIDENCE), ("inconclusive", None)),
        (agreement_verdict(99, 100, 1.0, CONFIDENCE), ("fail", None)),
    ],
)
def test_the_ends_of_the_scale(found, expected):
    assert found == expected


def test_a_drop_is_told_in_points_with_mcnemars_test():
    drop = paired_drop(30, 10, 1000, CONFIDENCE)
    assert drop.points == pytest.approx(2.0)
    assert drop.low < 2.0 < drop.high
    assert drop.p_value == pytest.approx(2 * stats.binom.cdf(10, 40, 0.5))
    mirrored = paired_drop(10, 30, 1000, CONFIDENCE)
    assert (mirrored.low, mirrored.high) == pytest.approx((-drop.high, -drop.low))
    assert paired_drop(0, 0, 1000, CONFIDENCE).p_value == 1.0


def test_wilson_solves_the_equation_of_its_ends():
    interval = wilson(95, 100, CONFIDENCE)
    assert interval.share == 0.95
    for end in (interval.low, interval.high):
        assert abs(0.95 - end) == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(end * (1 - end) / 100))
