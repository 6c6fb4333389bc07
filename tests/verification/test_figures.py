"""Every figure against a computation of its own: whole arrays, SciPy's functions, loops over images."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import spatial, special, stats

from resnet_edge.errors import ModelRejectedError
from resnet_edge.verification import metrics
from resnet_edge.verification.accuracy import measure_accuracy
from resnet_edge.verification.metrics import finite_or_none, sqnr_db
from resnet_edge.verification.parity import SMALLEST_PROBABILITY, measure_parity


def ordered(row: np.ndarray) -> list[int]:
    """Classes by output, equal ones by index."""
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


def outputs_pair(images: int, classes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs on coarse grids, so that ties are frequent, on both sides."""
    random = np.random.default_rng(seed)
    reference = random.integers(-8, 8, (images, classes)) / np.float32(2)
    outputs = np.clip(reference + random.integers(-2, 3, (images, classes)) / np.float32(2), -4, 4)
    return reference.astype(np.float32), outputs.astype(np.float32)


@pytest.fixture(params=["in one go", "in many chunks"])
def chunking(request, monkeypatch) -> None:
    if request.param == "in many chunks":
        monkeypatch.setattr(metrics, "_CHUNK_ELEMENTS", 70)


@pytest.mark.usefixtures("chunking")
@pytest.mark.parametrize("classes", [2, 5, 6, 10])
@pytest.mark.parametrize("probabilities", [False, True])
def test_parity_is_what_an_independent_computation_gives(classes, probabilities):
    reference, outputs = outputs_pair(97, classes)
    if probabilities:
        reference = special.softmax(reference, axis=1)
        outputs = np.round(special.softmax(outputs, axis=1) * 256) / np.float32(256)  # with exact zeros
        outputs = outputs.astype(np.float32)
    found = measure_parity(reference, outputs, confidence=0.9, probabilities=probabilities, step=0.25)

    wide, other = reference.astype(np.longdouble).ravel(), outputs.astype(np.longdouble).ravel()
    error = np.abs(wide - other)
    assert (found.images, found.non_finite) == (97, 0)
    assert found.max_abs_error == pytest.approx(float(max(error)))
    assert found.mean_abs_error == pytest.approx(float(np.mean(error)))
    assert found.max_abs_reference == pytest.approx(float(max(np.abs(wide))))
    assert (found.max_lsb, found.mean_lsb) == pytest.approx((max(error) * 4, np.mean(error) * 4))
    assert found.sqnr_db == pytest.approx(float(20 * np.log10(np.linalg.norm(wide) / np.linalg.norm(error))))
    assert found.cosine == pytest.approx(1 - spatial.distance.cosine(wide.astype(float), other.astype(float)))

    firsts = [ordered(row)[0] for row in reference]
    same = [ordered(row)[0] == first for row, first in zip(outputs, firsts, strict=True)]
    assert found.top1_agreement.count == sum(same)
    interval = stats.binomtest(sum(same), 97).proportion_ci(0.9, method="wilson")
    assert (found.top1_agreement.low, found.top1_agreement.high) == pytest.approx(tuple(interval))
    if classes > 5:
        among = [first in ordered(row)[:5] for row, first in zip(outputs, firsts, strict=True)]
        assert found.top5_agreement is not None
        assert found.top5_agreement.count == sum(among)
    else:
        assert found.top5_agreement is None

    if probabilities:
        rows = [np.clip(values.astype(float), SMALLEST_PROBABILITY, None) for values in (reference, outputs)]
    else:
        rows = [special.softmax(values.astype(float), axis=1) for values in (reference, outputs)]
    # scipy.stats.entropy normalizes and gives the relative entropy in nats.
    divergence = np.mean([stats.entropy(p, q) for p, q in zip(*rows, strict=True)])
    assert found.kl_divergence == pytest.approx(divergence, rel=1e-9)


@pytest.mark.usefixtures("chunking")
def test_equal_outputs_are_equal():
    reference, _ = outputs_pair(40, 7)
    found = measure_parity(reference, reference.copy(), confidence=0.95, probabilities=False)
    assert found.sqnr_db is None
    assert (found.max_abs_error, found.mean_abs_error, found.kl_divergence) == (0, 0, 0)
    assert found.cosine == pytest.approx(1)
    assert found.top1_agreement.share == 1
    assert found.max_lsb is None


@pytest.mark.usefixtures("chunking")
def test_images_with_nan_are_counted_and_left_out():
    reference, outputs = outputs_pair(60, 6)
    kept = np.ones(60, bool)
    kept[[0, 17, 59]] = False
    outputs[0, 3], outputs[17, :2], outputs[59] = np.nan, np.inf, -np.inf
    found = measure_parity(reference, outputs, confidence=0.95, probabilities=False)
    without = measure_parity(reference[kept], outputs[kept], confidence=0.95, probabilities=False)
    assert (found.images, found.non_finite) == (60, 1 + 2 + 6)
    assert found.top1_agreement == without.top1_agreement
    for name in ("max_abs_error", "mean_abs_error", "sqnr_db", "cosine", "kl_divergence"):
        assert getattr(found, name) == pytest.approx(getattr(without, name))


def test_an_artifact_that_says_nothing_gets_numbers_that_do_not_flatter():
    reference, outputs = outputs_pair(30, 6)
    found = measure_parity(reference, np.full_like(outputs, np.nan), confidence=0.95, probabilities=False)
    assert found.non_finite == 30 * 6
    assert found.max_abs_error == np.abs(reference).max()
    assert (found.sqnr_db, found.cosine) == (0, 0)


def test_a_reference_that_is_not_finite_is_refused_with_the_image():
    reference, outputs = outputs_pair(30, 6)
    reference[21, 2] = np.nan
    with pytest.raises(ModelRejectedError, match="image 21"):
        measure_parity(reference, outputs, confidence=0.95, probabilities=False)


def test_outputs_may_be_on_disk(tmp_path):
    reference, outputs = outputs_pair(50, 6)
    for name, values in (("reference", reference), ("outputs", outputs)):
        np.save(tmp_path / f"{name}.npy", values)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("reference", "outputs")]
    found = measure_parity(mapped[0], mapped[1], confidence=0.95, probabilities=False)
    assert found == measure_parity(reference, outputs, confidence=0.95, probabilities=False)


def test_noise_without_signal_is_a_number():
    nothing, noise = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert -4000 < sqnr_db(nothing, noise) < -1000
    assert sqnr_db(nothing, nothing) == math.inf
    assert finite_or_none(sqnr_db(nothing, nothing)) is None


def independent_accuracy(reference, outputs, labels):
    """Per image: is the label first, among the first five, and what was predicted; None for no prediction."""
    told = []
    for row, label in zip(outputs, labels, strict=True):
        order = ordered(row) if np.isfinite(row).all() else []
        told.append((order[0] if order else None, label in order[:1], label in order[:5]))
    return told


@pytest.mark.usefixtures("chunking")
@pytest.mark.parametrize("classes", [3, 6, 12])
def test_accuracy_is_what_an_independent_computation_gives(classes):
    reference, outputs = outputs_pair(211, classes, seed=classes)
    outputs[5] = np.nan
    random = np.random.default_rng(1)
    # Mostly what the reference says, so that images are lost and won; the last class has no image.
    labels = np.where(random.random(211) < 0.7, reference.argmax(1), random.integers(0, classes, 211))
    labels = np.minimum(labels, classes - 2)
    names = [f"class {index}" for index in range(classes)]
    found = measure_accuracy(reference, outputs, labels, class_names=names, confidence=0.95)

    before = independent_accuracy(reference, reference, labels)
    after = independent_accuracy(reference, outputs, labels)
    assert found.top1.count == sum(right for _, right, _ in after)
    assert found.reference_top1.count == sum(right for _, right, _ in before)
    assert (found.top5 is None) == (classes < 6)
    if found.top5 is not None:
        assert found.top5.count == sum(among for _, _, among in after)
    pairs = list(zip(before, after, labels.tolist(), strict=True))
    lost = sum(a[1] and not b[1] for a, b, _ in pairs)
    won = sum(b[1] and not a[1] for a, b, _ in pairs)
    assert (found.drop.lost, found.drop.won) == (lost, won)
    assert lost > 0
    assert won > 0
    assert found.drop.points == pytest.approx(100 * (lost - won) / 211)

    by_class = {
        label: (
            sum(a[1] - b[1] for a, b, truth in pairs if truth == label) / labels.tolist().count(label),
            labels.tolist().count(label),
        )
        for label in sorted(set(labels.tolist()))
    }
    worst = max(by_class, key=lambda label: (by_class[label][0], -label))
    assert (found.worst_class.label, found.worst_class.images) == (f"class {worst}", by_class[worst][1])
    drop = found.worst_class.reference_accuracy - found.worst_class.accuracy
    assert drop == pytest.approx(by_class[worst][0])

    changes = Counter((a[0], b[0]) for a, b, _ in pairs if a[0] != b[0])
    told = {(change.reference, change.artifact): change.images for change in found.changes}
    assert len(told) == min(20, len(changes))
    for (reference_class, artifact_class), images in changes.most_common(3):
        if images > min(told.values()):
            artifact_name = "not finite" if artifact_class is None else names[artifact_class]
            assert told[(names[reference_class], artifact_name)] == images
    counts = [change.images for change in found.changes]
    assert counts == sorted(counts, reverse=True)
    if len(changes) <= 20:
        assert sum(change.lost for change in found.changes) == lost
        assert sum(change.won for change in found.changes) == won


def test_classes_without_names_are_told_by_index_and_equal_drops_by_the_lowest():
    reference = np.eye(4, dtype=np.float32)
    outputs = np.roll(reference, 1, axis=1)
    outputs[0] = reference[0]
    found = measure_accuracy(reference, outputs, np.arange(4), class_names=(), confidence=0.95)
    assert found.worst_class.label == "1"
    assert [(change.reference, change.artifact) for change in found.changes] == [
        ("1", "2"),
        ("2", "3"),
        ("3", "0"),
    ]


def test_nothing_changed_lists_no_change():
    reference, _ = outputs_pair(20, 4)
    found = measure_accuracy(reference, reference, np.zeros(20, int), class_names=(), confidence=0.95)
    assert found.changes == ()
    assert (found.drop.points, found.drop.p_value) == (0, 1)
