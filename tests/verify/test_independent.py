"""What is reported is what a script that knows nothing of this project computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_edge.data import shipped
from tests.command_line import run

IMAGES = 500

SCRIPT = Path(__file__).with_name("independent.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first shipped test images, with labels."""
    path = tmp_path_factory.mktemp("data") / "test.npz"
    with np.load(shipped.dataset("fashion-mnist").test) as arrays:
        np.savez(path, images=arrays["images"][:IMAGES], labels=arrays["labels"][:IMAGES])
    return path


@pytest.fixture(scope="module")
def expected(small_bundle, data):
    done = subprocess.run(
        [sys.executable, "-P", SCRIPT, small_bundle, data], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures by path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


OF_ROUNDING = tuple(
    f"parity.{name}" for name in ("max_abs_error", "mean_abs_error", "sqnr_db", "kl_divergence")
)
"""Figures of float32 files that consist of float32's rounding, which changes with the order of sums."""


def test_every_figure_is_computed_once_more(small_bundle, data, expected, capsys):
    result = run(capsys, "verify", small_bundle, "--data", data, "--threads", "1", "--json")
    assert result.code == 0, result.err
    assert {artifact["path"] for artifact in result.json["artifacts"]} == expected.keys()
    for artifact in result.json["artifacts"]:
        reported = flat({"parity": artifact["parity"], "accuracy": artifact["accuracy"]})
        for name, value in flat(expected[artifact["path"]]).items():
            if artifact["precision"] == "int8" or name not in OF_ROUNDING:
                # Integers are the same to the bit, and the float model is to some 1e-6 of its outputs; int8's
                # own errors are a thousand times that.
                assert reported[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (artifact["path"], name)
        if artifact["precision"] == "fp32":
            for figures in (artifact["parity"], expected[artifact["path"]]["parity"]):
                assert figures["max_abs_error"] < 1e-5
                assert figures["sqnr_db"] > 100


def test_the_int8_files_differ_from_float(expected):
    """Otherwise the comparison would compare zeros."""
    for name, figures in expected.items():
        if "int8" in name:
            assert figures["parity"]["top1_agreement"]["count"] < IMAGES
            drop = figures["accuracy"]["drop"]
            assert drop["lost"] + drop["won"] > 0
