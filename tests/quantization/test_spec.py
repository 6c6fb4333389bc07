"""Specs that somebody has edited: the field is named, and nothing is guessed."""

from __future__ import annotations

import json

import pytest

from resnet_edge.errors import ModelRejectedError
from resnet_edge.quantization.spec import ConstantQuant, QuantSpec, TensorQuant
from resnet_edge.quantization.storage import load_spec

SPEC = QuantSpec(
    recipe="int8",
    tensors={
        "a": TensorQuant(dtype="int8", scale=0.5, zero_point=-3, qmin=-128, qmax=127, observed=(-1.0, 2.0))
    },
    constants={"a/weight": ConstantQuant(dtype="int8", scales=(0.25, 1.0), axis=3)},
)


def test_a_spec_survives_its_file(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(SPEC.text())
    assert load_spec(path) == SPEC


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        (("recipe",), [], "recipe is [], not a text"),
        (("io",), "int4", "io is 'int4', not one of float32, int8, uint8"),
        (("tensors", "a", "scale"), "x", "tensors.a.scale is 'x', not a finite number"),
        (("tensors", "a", "observed"), [1.0], "tensors.a.observed has 1 entries, not 2"),
        (
            ("constants", "a/weight", "scales", 1),
            None,
            "constants.a/weight.scales[1] is None, not a finite number",
        ),
        (("schema",), 99, "schema 99"),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path, place, value, found):
    document = json.loads(SPEC.text())
    *way, last = place
    part = document
    for key in way:
        part = part[key]
    part[last] = value
    (tmp_path / "spec.json").write_text(json.dumps(document))
    with pytest.raises(ModelRejectedError) as caught:
        load_spec(tmp_path / "spec.json")
    assert caught.value.found == found


@pytest.mark.parametrize("content", ["[]", "null", "{", "\xff"])
def test_what_is_no_spec_is_refused(tmp_path, content):
    path = tmp_path / "spec.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ModelRejectedError):
        load_spec(path)


def test_a_missing_spec_is_refused(tmp_path):
    with pytest.raises(ModelRejectedError, match=r"absent\.json"):
        load_spec(tmp_path / "absent.json")
