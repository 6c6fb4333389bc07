"""Which images of many are taken."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from resnet_edge.data.datasets import open_dataset
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.data.sampling import choose_indices

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda labels: np.array(labels, np.int64))


@given(labels=LABELS, share=st.floats(0.01, 1.5))
def test_every_class_keeps_its_share(labels, share):
    wanted = max(1, round(share * len(labels)))
    chosen = choose_indices(len(labels), wanted, labels)
    assert len(chosen) == min(wanted, len(labels))
    assert np.array_equal(chosen, np.unique(chosen))
    for label in range(5):
        quota = np.count_nonzero(labels == label) * len(chosen) / len(labels)
        assert abs(np.count_nonzero(labels[chosen] == label) - quota) < 1


def test_without_labels_images_are_spread_evenly():
    assert choose_indices(100, 4, None).tolist() == [0, 25, 50, 75]
    assert choose_indices(3, 10, None).tolist() == [0, 1, 2]


def test_picked_images_are_those_at_their_positions(tmp_path):
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    np.savez_compressed(tmp_path / "d.npz", images=images, labels=np.arange(6))
    dataset = open_dataset(str(tmp_path / "d.npz"), Preprocessing.parse("raw", 1, (2, 2)))
    picked = dataset.pick(np.array([1, 2, 5]))
    assert picked.labels is not None
    assert picked.labels.tolist() == [1, 2, 5]
    assert np.array_equal(np.stack(list(picked.fitted())), images[[1, 2, 5]])
    assert np.array_equal(np.stack(list(picked.fitted(1, 3))), images[[2, 5]])
    twice = picked.pick(np.array([0, 2]))
    assert np.array_equal(np.concatenate(list(twice.batches())), images[[1, 5]])
    assert len(list(twice.fitted(2, 2))) == 0
