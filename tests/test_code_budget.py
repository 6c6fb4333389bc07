"""The code stays readable: sizes that a newcomer can take in (the figures are the project's own rule)."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("resnet_edge/**/*.py"), *ROOT.glob("converters/**/*.py")])


def functions(tree: ast.AST) -> dict[str, int]:
    """Lines of each function."""
    return {
        f"{node.name}:{node.lineno}": (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_and_function_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert {name: lines for name, lines in functions(ast.parse(text)).items() if lines > 60} == {}


def test_most_functions_are_small():
    lengths = [lines for path in SOURCES for lines in functions(ast.parse(path.read_text())).values()]
    assert median(lengths) <= 15


def test_no_drawer_for_odds_and_ends():
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common")]
