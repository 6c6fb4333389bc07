"""Which figures pass which limits, and what a sentence must hold."""

from __future__ import annotations

import dataclasses

import pytest

from resnet_edge.errors import UsageError
from resnet_edge.verification.gates import Limits, Subject, check_accuracy, check_parity, check_speedup
from resnet_edge.verification.intervals import paired_drop, wilson
from resnet_edge.verification.report import Accuracy, ClassAccuracy, Latency, Parity, Ratio

PARITY = Parity(
    images=500,
    non_finite=0,
    max_abs_error=0.001,
    mean_abs_error=0.0002,
    max_abs_reference=20.0,
    sqnr_db=60.0,
    cosine=0.9999,
    top1_agreement=wilson(490, 500, 0.95),
    top5_agreement=None,
    kl_divergence=0.001,
)


def subject(precision: str = "fp32", **changes) -> Subject:
    return Subject(artifact="m.tflite", runner="local", precision=precision, **changes)


def accuracy(lost: int, won: int, images: int = 1000) -> Accuracy:
    right = images // 2
    return Accuracy(
        top1=wilson(right - lost + won, images, 0.95),
        top5=None,
        reference_top1=wilson(right, images, 0.95),
        drop=paired_drop(lost, won, images, 0.95),
        worst_class=ClassAccuracy(label="0", images=images, accuracy=0.5, reference_accuracy=0.5),
        changes=(),
    )


def latency(speedup: Ratio | None = None, *, emulated: bool = False) -> Latency:
    return Latency(
        batch=1,
        threads=1,
        warmup=5,
        runs=50,
        median_ms=3.0,
        p90_ms=3.5,
        p99_ms=4.0,
        load_ms=10.0,
        peak_memory=1 << 26,
        speedup=speedup,
        emulated=emulated,
    )


def verdicts(checks) -> dict[str, str]:
    for check in checks:
        assert (check.artifact, check.runner) == ("m.tflite", "local")
        if check.verdict != "pass":
            assert ";" in check.sentence or ":" in check.sentence, "it says what to do next"
    return {check.name: check.verdict for check in checks}


@pytest.mark.parametrize(
    ("precision", "error", "half", "expected"),
    [
        ("fp32", 0.0019, False, "pass"),  # 1e-4 of the largest output, 20
        ("fp32", 0.0021, False, "fail"),
        ("fp32", 0.39, True, "pass"),  # the model itself computes in float16
        ("fp16", 0.39, False, "pass"),  # 2e-2 of 20
        ("fp16", 0.41, False, "fail"),
    ],
)
def test_float_artifacts_are_held_to_the_tolerance_of_their_precision(precision, error, half, expected):
    parity = dataclasses.replace(PARITY, max_abs_error=error)
    for seeded in (False, True):
        found = verdicts(check_parity(parity, Limits(), subject(precision, half=half, seeded=seeded)))
        assert found == {"finite": "pass", "max-error": expected}


def test_the_tolerance_is_of_at_least_one():
    small = dataclasses.replace(PARITY, max_abs_reference=0.01, max_abs_error=0.9e-4)
    assert verdicts(check_parity(small, Limits(), subject()))["max-error"] == "pass"


@pytest.mark.parametrize(
    "precision", ["int8", "int8-per-tensor", "int16x8", "int8-weights", "of another tool"]
)
def test_integers_must_not_have_collapsed_however_often_they_agree(precision):
    collapsed = dataclasses.replace(PARITY, sqnr_db=9.9, top1_agreement=wilson(500, 500, 0.95))
    assert verdicts(check_parity(collapsed, Limits(), subject(precision)))["sqnr"] == "fail"
    assert verdicts(check_parity(PARITY, Limits(), subject(precision))) == {"finite": "pass", "sqnr": "pass"}


def test_equal_outputs_pass_any_sqnr():
    equal = dataclasses.replace(PARITY, sqnr_db=None)
    assert verdicts(check_parity(equal, Limits(min_sqnr=100), subject("int8")))["sqnr"] == "pass"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nan_fails_and_silences_the_other_figures(precision):
    broken = dataclasses.replace(PARITY, non_finite=3)
    limits = Limits(max_error=1, min_sqnr=1, min_agreement=1)
    assert verdicts(check_parity(broken, limits, subject(precision))) == {"finite": "fail"}


@pytest.mark.parametrize("layers_tell", [False, True])
def test_layers_are_advised_only_where_they_tell_more(layers_tell):
    which = subject("int8", layers_tell=layers_tell)
    failed = [
        *check_parity(dataclasses.replace(PARITY, non_finite=3), Limits(), which),
        *check_parity(PARITY, Limits(min_sqnr=100), which)[1:],
        *check_accuracy(accuracy(60, 1), Limits(max_drop=2), which)[:1],
    ]
    assert set(verdicts(failed)) == {"finite", "sqnr", "drop"}
    assert {("--layers" in check.sentence) for check in failed} == {layers_tell}


def test_seeded_inputs_decide_nothing_about_integer_activations():
    limits = Limits(max_error=1e-9, min_sqnr=20, min_agreement=50)
    checks = check_parity(PARITY, limits, subject("int8", seeded=True))
    expected = {"max-error": "inconclusive", "sqnr": "inconclusive", "agreement": "inconclusive"}
    assert verdicts(checks) == {"finite": "pass", **expected}
    assert all("--data" in check.sentence for check in checks[1:])
    weights_only = check_parity(PARITY, Limits(), subject("int8-weights", seeded=True))
    assert verdicts(weights_only)["sqnr"] == "pass"


@pytest.mark.parametrize(("minimum", "expected"), [(95, "pass"), (97.5, "inconclusive"), (99.5, "fail")])
def test_agreement_is_tested_only_on_request_and_with_three_verdicts(minimum, expected):
    check = check_parity(PARITY, Limits(min_agreement=minimum), subject("int8"))[-1]
    assert (check.name, check.verdict) == ("agreement", expected)
    for fact in ("490 of 500 images", "98.00%", f"at least {minimum:g} %"):
        assert fact in check.sentence
    assert ("more images would decide with 80% probability" in check.sentence) == (expected == "inconclusive")


@pytest.mark.parametrize(
    ("lost", "won", "limit", "expected"),
    [(3, 1, 2, "pass"), (3, 1, 0.5, "inconclusive"), (60, 1, 2, "fail"), (10, 5, 0.5, "inconclusive")],
)
def test_the_drop_has_three_verdicts(lost, won, limit, expected):
    check = check_accuracy(accuracy(lost, won), Limits(max_drop=limit), subject())[0]
    assert (check.name, check.verdict) == ("drop", expected)
    for fact in ("on 1,000 images", f"{lost} lost, {won} won", f"at most {limit:g}"):
        assert fact in check.sentence


def test_a_drop_that_was_not_measured_has_not_passed():
    (check,) = check_accuracy(None, Limits(max_drop=1.0), subject("int8"))
    assert (check.name, check.verdict) == ("drop", "inconclusive")
    assert "no labels" in check.sentence
    assert check_accuracy(None, Limits(), subject("int8")) == []


def test_a_drop_of_just_the_limit_does_not_promise_a_number_of_images():
    check = check_accuracy(accuracy(10, 5), Limits(max_drop=0.5), subject())[0]
    assert "cannot be said how many images" in check.sentence
    assert "give more with --data" in check.sentence


def test_more_confidence_asks_for_more_images():
    verdict = [
        check_accuracy(accuracy(3, 1), Limits(max_drop=0.7, confidence=confidence), subject())[0].verdict
        for confidence in (0.9, 0.999)
    ]
    assert verdict == ["pass", "inconclusive"]


def test_integers_better_than_float_make_the_baseline_suspect_without_failing():
    check = check_accuracy(accuracy(5, 40), Limits(), subject("int8"))[0]
    assert (check.name, check.verdict) == ("baseline", "skipped")
    assert "suspect" in check.sentence
    assert verdicts(check_accuracy(accuracy(5, 8), Limits(), subject("int8"))) == {"baseline": "pass"}
    assert verdicts(check_accuracy(accuracy(40, 5), Limits(), subject("int8"))) == {"baseline": "pass"}
    assert check_accuracy(accuracy(5, 40), Limits(), subject("fp32")) == []


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_float_model_that_guesses_is_no_baseline(precision):
    measured = accuracy(0, 0)
    classes = round(1 / measured.reference_top1.share)  # guessing would be as good
    guessing = subject(precision, classes=classes)
    (check,) = check_accuracy(measured, Limits(), guessing)
    assert (check.name, check.verdict) == ("baseline", "skipped")
    assert f"guessing among {classes} classes" in check.sentence
    found = verdicts(check_accuracy(measured, Limits(max_drop=50.0), guessing))
    assert found == {"drop": "pass", "baseline": "inconclusive"}
    knowing = subject(precision, classes=100 * classes)
    assert "guessing" not in " ".join(check.sentence for check in check_accuracy(measured, Limits(), knowing))


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (latency(Ratio(value=2.0, low=1.6, high=2.4)), "pass"),
        (latency(Ratio(value=1.6, low=1.4, high=1.8)), "inconclusive"),
        (latency(Ratio(value=1.2, low=1.1, high=1.4)), "fail"),
        (latency(), "inconclusive"),
        (None, "inconclusive"),
        (latency(Ratio(value=9.0, low=8.0, high=10.0), emulated=True), "skipped"),
    ],
)
def test_the_speedup_is_decided_by_its_interval(measured, expected):
    limits = Limits(min_speedup=1.5)
    assert verdicts(check_speedup(measured, limits, subject("int8"))) == {"speedup": expected}
    assert check_speedup(measured, limits, subject("fp32")) == []
    assert check_speedup(measured, Limits(), subject("int8")) == []


@pytest.mark.parametrize(
    "limits",
    [
        {"max_error": -1.0},
        {"min_agreement": 101.0},
        {"max_drop": -0.1},
        {"max_drop": float("nan")},
        {"max_error": float("inf")},
        {"min_sqnr": float("-inf")},
        {"min_speedup": -1.0},
        {"confidence": 95.0},
    ],
)
def test_limits_that_mean_nothing_are_refused(limits):
    with pytest.raises(UsageError, match="cannot be"):
        Limits(**limits)
