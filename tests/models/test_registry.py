"""The table of models, without a framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resnet_edge.errors import UsageError
from resnet_edge.models import MODELS, find_model

NAMES = {
    *("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
    *("resnet20v2", "resnet56v2", "resnet110v2", "resnet164v2"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnet50v1.5", "resnet101v1.5", "resnet152v1.5"),
    *("resnet18v2", "resnet34v2", "resnet50v2", "resnet101v2", "resnet152v2"),
    *("wide_resnet50_2", "resnext50_32x4d", "resnet50d", "seresnet50"),
}


def test_has_the_promised_names():
    assert set(MODELS) == NAMES
    assert all(find_model(name).name == name for name in NAMES)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("resnet50_v2", "resnet50v2"), ("ResNet-18", "resnet18"), ("resnet50v1_5", "resnet50v1.5")],
)
def test_unknown_name_is_told_the_nearest(written, meant):
    with pytest.raises(UsageError, match="no model named") as caught:
        find_model(written)
    assert meant in caught.value.allowed
    assert caught.value.exit_code == 2


def test_name_like_nothing_gets_no_false_hints():
    with pytest.raises(UsageError) as caught:
        find_model("yolo")
    assert not caught.value.allowed


def test_table_needs_no_framework():
    code = (
        "import sys; from resnet_edge.models import MODELS, build_model; assert len(MODELS);"
        "print([m for m in ('tensorflow', 'keras', 'torch', 'h5py') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_shipped_weights_bring_their_input_shape():
    spec = find_model("resnet8")
    assert spec.input_shape_with("fashion-mnist") == (28, 28, 1)
    assert spec.input_shape_with(None) == spec.input_shape_with("some.h5") == (32, 32, 3)
    assert find_model("resnet50").input_shape_with("imagenet") == (224, 224, 3)
