"""The JSON report: everything is in it, and its documentation names every field."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from resnet_edge.reports import json_report
from resnet_edge.runners import Condition, Machine
from resnet_edge.verification import layer
from resnet_edge.verification import report as types
from tests.reports.sample import HOSTILE, hostile, sample

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "report.md"
PARTS: list[type] = [
    Machine,
    Condition,
    *(
        kind
        for module in (types, layer)
        for kind in vars(module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    ),
]
# Not fields of the value: made by Report.to_json.
ADDED = {"Report": ["kind", "schema", "verdict", "exit_code"]}


def documented():
    """Fields of each section's table, in order."""
    sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    tables = {
        section.split("\n", 1)[0]: re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        for section in sections
    }
    return {title: fields for title, fields in tables.items() if fields}


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_every_field_is_documented(kind):
    fields = [each.name for each in dataclasses.fields(kind)]
    assert documented()[kind.__name__] == [*ADDED.get(kind.__name__, []), *fields]


def test_nothing_else_is_documented():
    assert set(documented()) == {kind.__name__ for kind in PARTS}


def test_the_documented_schema_is_the_one():
    assert f"| `schema` | {types.SCHEMA} |" in DOCUMENT.read_text()
    assert json.loads(json_report.render(sample()))["schema"] == types.SCHEMA


def test_it_holds_the_whole_report():
    report = sample()
    found = json.loads(json_report.render(report))
    assert found == json.loads(json.dumps(report.to_json()))
    assert (found["verdict"], found["exit_code"]) == ("fail", 1)
    assert len(found["artifacts"][2]["layers"]["layers"]) == 14
    assert found["changed"][0]["artifacts"]["resnet8-int8.tflite"]["probability"] == 0.91


def test_names_survive_even_where_utf8_cannot_hold_them():
    text = json_report.render(hostile())
    assert text.isascii()
    assert json.loads(text)["subject"] == hostile().subject
    assert json.loads(text)["subject"].startswith(HOSTILE)


def test_it_is_never_invalid_json():
    broken = dataclasses.replace(sample(), confidence=float("nan"))
    with pytest.raises(ValueError, match="JSON compliant"):
        json_report.render(broken)


def test_every_verdict_is_documented():
    for verdict in (*get_args(types.Verdict), *get_args(layer.OperatorVerdict)):
        assert f"`{verdict}`" in DOCUMENT.read_text()
