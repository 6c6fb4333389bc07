"""``resnet-edge models``."""

from __future__ import annotations

from tests.command_line import run


def test_the_table_names_every_model(capsys):
    from resnet_edge.models.registry import MODELS

    result = run(capsys, "models")
    assert result.code == 0
    for spec in MODELS.values():
        assert f"{spec.parameters:,}" in result.out


def test_json(capsys):
    rows = {row["name"]: row for row in run(capsys, "models", "--json").json}
    assert rows["resnet18"]["parameters"] == 11_689_512
    assert rows["resnet8"]["weights"] == ["fashion-mnist"]
