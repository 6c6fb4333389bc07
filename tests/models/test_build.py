"""Every model of the table, built."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest

from resnet_edge.errors import ModelRejectedError, UsageError
from resnet_edge.graph.importing import import_keras
from resnet_edge.models import MODELS, Head, Shortcut, build_model, find_model
from tests.models.randomized import images

TORCHVISION_GMACS = {
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50v1.5": 4.089,
    "resnet101v1.5": 7.801,
    "resnet152v1.5": 11.514,
    "wide_resnet50_2": 11.398,
    "resnext50_32x4d": 4.230,
}
"""As torchvision prints them with its weights."""

COUNTED_NAME = re.compile(r"(conv2d|batch_normalization|re_lu|add|pad|get_item|activation|dense)(_\d+)?")


@pytest.mark.parametrize("name", MODELS)
def test_has_the_published_size(name):
    spec = find_model(name)
    # The kernels stay zero: sizes and names do not depend on them, and drawing 60 million takes a while.
    model = build_model(spec, seed=None)
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    counted = model.count_params() if spec.published.with_statistics else trainable
    unit = spec.published.rounded_to
    assert spec.parameters == trainable
    assert round(counted / unit) * unit == spec.published.parameters
    assert import_keras(model).macs == spec.macs
    assert model.output_shape == (None, spec.classes)
    names = [operation.name for operation in model.operations]
    assert len(set(names)) == len(names)
    assert not [layer for layer in names if COUNTED_NAME.fullmatch(layer)]


@pytest.mark.parametrize("name", TORCHVISION_GMACS)
def test_macs_are_torchvisions(name):
    assert round(find_model(name).macs / 1e9, 3) == TORCHVISION_GMACS[name]


def test_the_seed_decides_the_weights():
    spec = find_model("resnet20")
    first, again, other = (build_model(spec, seed=seed) for seed in (3, 3, 4))
    for mine, same in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), same.numpy())
    kernels = [(a, b) for a, b in zip(first.weights, other.weights, strict=True) if a.name == "kernel"]
    assert all(np.abs(a.numpy() - b.numpy()).max() > 0 for a, b in kernels)


@pytest.mark.parametrize(
    ("name", "side"), [("resnet20", 32), ("resnet110", 16), ("resnet164v2", 8), ("resnet34", 64)]
)
def test_random_weights_give_logits_of_a_sane_size(name, side):
    """Deep sums of unscaled branches would reach 1e7 and saturate whatever is measured on them."""
    model = build_model(find_model(name), input_shape=(side, side, 3))
    logits = model(images((side, side, 3)), training=False).numpy()
    assert 0.05 < np.abs(logits).max() < 50
    assert np.abs(logits[0] - logits[1]).max() > 1e-3, "the logits do not depend on the image"


@pytest.mark.parametrize(("name", "head"), [("resnet8", Head.SOFTMAX), ("resnet20", Head.LOGITS)])
def test_head_is_what_the_row_says(name, head):
    spec = find_model(name)
    assert spec.head is head
    sums = build_model(spec)(images(spec.input_shape), training=False).numpy().sum(axis=1)
    # Float32 sums of ten probabilities.
    assert np.allclose(sums, 1, atol=1e-6) == (head is Head.SOFTMAX)


def test_options_change_what_they_name():
    model = build_model(find_model("resnet18"), input_shape=(65, 40, 1), classes=3, width=0.5)
    assert model.input_shape == (None, 65, 40, 1)
    assert model.output_shape == (None, 3)
    assert model.get_layer("layer4.1.conv2").filters == 256


def test_width_keeps_groups_whole():
    conv = build_model(
        find_model("resnext50_32x4d"), input_shape=(32, 32, 3), width=0.3, seed=None
    ).get_layer("layer1.0.conv2")
    assert conv.groups == 32
    assert conv.filters % 32 == 0


@pytest.mark.parametrize("name", ["resnet20", "resnet20v2"])
def test_shortcuts_a_and_b(name):
    spec = find_model(name)
    padded, projected = (build_model(spec, shortcut=shortcut) for shortcut in Shortcut)
    kinds = [type(operation).__name__ for operation in padded.operations]
    assert kinds.count("GetItem") == kinds.count("Pad") == 2
    # v1's projections have a batch norm, v2's have not (He et al. 2016).
    norms = 4 * (32 + 64) if name == "resnet20" else 0
    assert projected.count_params() - padded.count_params() == 16 * 32 + 32 * 64 + norms


def test_padding_shortcut_survives_saving(tmp_path):
    model = build_model(find_model("resnet20"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    names = [operation.name for operation in model.operations]
    assert "layer2.0.shortcut.slice" in names
    assert "layer3.0.shortcut.pad" in names
    assert [operation.name for operation in loaded.operations] == names


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("resnet18", {"input_shape": (31, 64, 3)}, ModelRejectedError),
        ("resnet20", {"input_shape": (3, 32, 3)}, ModelRejectedError),
        ("resnet20", {"classes": 0}, UsageError),
        ("resnet20", {"width": 0}, UsageError),
        ("resnet18", {"shortcut": Shortcut.PAD}, UsageError),
    ],
)
def test_impossible_options_are_refused(name, options, error):
    with pytest.raises(error) as caught:
        build_model(find_model(name), **options)
    assert caught.value.found


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnet50v2", "resnet50d", "resnet8", "resnet164v2"]
)
def test_smallest_input_is_accepted(name):
    spec = find_model(name)
    side = spec.total_stride
    build_model(spec, input_shape=(side, side, 3), seed=None)
