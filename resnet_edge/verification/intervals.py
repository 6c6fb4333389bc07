"""How sure a count of images makes one: intervals, and decisions that are pass, fail or not yet known.

Drops use the score interval for paired proportions of Tango (1998), Statistics in Medicine 17, 891-908.
It keeps its promises best where files differ in few predictions: with 200 to 10,000 images and 0.2 % to 3 %
of the predictions lost or won, its one-sided 95 % upper bound lies below the true drop in at most 6 % of the
cases. Newcombe's method 10 comes to 13 % where the model is right on 70 % of the images, Bonett and Price's
interval to 9 %, and so does the score with a correction for skewness.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import stats

from resnet_edge.verification.report import Drop, Proportion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.verification.report import Verdict

POWER = 0.8
"""How surely the number of images that a user is told decides, if the true rates are those observed: what
studies are planned for. With the number that decides on the average, every second user would be told to come
back once more."""

_HALVINGS = 60
"""Of the interval [-1, 1]: down to the resolution of a float64."""

Counts: TypeAlias = "NDArray[np.int64] | int"


def wilson(count: int, of: int, confidence: float) -> Proportion:
    """A share, of at least one, with its two-sided Wilson interval."""
    interval = stats.binomtest(count, of).proportion_ci(confidence, method="wilson")
    return Proportion(count=count, of=of, low=float(interval.low), high=float(interval.high))


def paired_drop(lost: int, won: int, images: int, confidence: float) -> Drop:
    """The drop of accuracy with its two-sided interval, and the exact McNemar test of no difference.

    Args:
        lost: Images that only the reference has right.
        won: Images that only the artifact has right.
        images: All images, at least 1.
        confidence: Of the interval.
    """
    low, high = drop_bounds(lost, won, images, (1 + confidence) / 2)
    changed = lost + won
    return Drop(
        points=100 * (lost - won) / images,
        low=100 * float(low),
        high=100 * float(high),
        lost=lost,
        won=won,
        p_value=float(stats.binomtest(min(lost, won), changed).pvalue) if changed else 1.0,
    )


def drop_bounds(
    lost: Counts, won: Counts, images: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One-sided lower and upper bounds of the share that was lost net, each at ``confidence``.

    Counts may be arrays. The bounds are the drops at which the score statistic, which falls as the drop
    grows, reaches the normal quantile.
    """
    quantile = float(stats.norm.ppf(confidence))
    losses, wins = np.asarray(lost, np.float64), np.asarray(won, np.float64)
    bounds = []
    for target in (quantile, -quantile):
        low, high = np.full(losses.shape, -1.0), np.full(losses.shape, 1.0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            beyond = drop_score(losses, wins, images, middle) < target
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        bounds.append((low + high) / 2)
    return bounds[0], bounds[1]


def drop_score(
    lost: NDArray[np.float64], won: NDArray[np.float64], images: int, drop: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How many standard errors the observed drop lies above a supposed one (Tango 1998).

    The standard error is that of the likeliest rates of lost and won images that differ by ``drop``.
    """
    linear = lost + won - (2 * images - lost + won) * drop
    root = np.sqrt(np.maximum(linear**2 + 8 * images * won * drop * (1 - drop), 0))
    won_rate = np.maximum((linear + root) / (4 * images), np.maximum(0, -drop))
    variance = images * (2 * won_rate + drop * (1 - drop))
    above = lost - won - images * drop
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above == 0, 0.0, above / np.sqrt(np.maximum(variance, 0)))


def non_inferior(
    lost: int, won: int, images: int, limit_points: float, confidence: float
) -> tuple[Verdict, int | None]:
    """Whether the drop is within a limit: one-sided, by the bounds of :func:`drop_bounds`.

    Args:
        lost: Images that only the reference has right.
        won: Images that only the artifact has right.
        images: All images, at least 1.
        limit_points: What the drop may be, in percentage points, 0 to 100.
        confidence: Of the decision.

    Returns:
        ``pass`` where the upper bound is at most the limit, ``fail`` where the lower bound is above it; else
        ``inconclusive`` and how many more images decide with the probability ``POWER`` if the true rates are
        those observed (None: where these are the limit itself, nobody can say).
    """
    counts = np.asarray(lost, np.float64), np.asarray(won, np.float64)
    return _decide(-float(drop_score(*counts, images, np.asarray(limit_points / 100))), images, confidence)


def agreement_verdict(
    agree: int, of: int, minimum_share: float, confidence: float
) -> tuple[Verdict, int | None]:
    """Whether a share is at least a minimum: ``pass`` and ``fail`` by the one-sided Wilson bounds.

    Returns:
        As :func:`non_inferior`.
    """
    above = agree / of - minimum_share
    error = math.sqrt(minimum_share * (1 - minimum_share) / of)
    score = above / error if error else math.copysign(math.inf, above) if above else 0.0
    return _decide(score, of, confidence)


def _decide(score: float, images: int, confidence: float) -> tuple[Verdict, int | None]:
    """The verdict on a score, positive on the good side of the limit.

    With the same rates on k times the images a score is sqrt(k) times as large, on the average; it varies by
    about 1 around that.
    """
    quantile, slack = (float(stats.norm.ppf(share)) for share in (confidence, POWER))
    if abs(score) >= quantile:
        return ("pass" if score > 0 else "fail"), None
    if score == 0:
        return "inconclusive", None
    return "inconclusive", math.ceil(images * ((quantile + slack) / score) ** 2) - images
