"""Markdown: the whole text, names that stay names, and a length that a comment can have."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from resnet_edge.reports import markdown
from resnet_edge.reports.figures import plain
from tests.reports.sample import hostile, sample

GOLDEN = Path(__file__).with_name("golden")


def inline(text):
    """The tokens of all running text and cells, as a CommonMark parser with tables reads them."""
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [block.children or [] for block in blocks if block.type == "inline"]


def test_the_whole_text():
    assert markdown.render(sample()) == (GOLDEN / "report.md").read_text()


def test_names_do_not_break_tables():
    text = markdown.render(hostile())
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    assert [block.type for block in blocks].count("table_open") == 9
    # A parser cuts rows that have too many cells: the last one's text would be missing.
    cells = {"".join(token.content for token in tokens if token.type == "text") for tokens in inline(text)}
    assert plain(hostile().model) in cells


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "*a* _b_ ~~c~~",
        "`a`",
        "[a](b)",
        "![a](b)",
        "<b>a</b>",
        "&amp;",
        "\\|",
        "@team",
        "#1",
        "$a$",
        "- a",
    ],
)
def test_a_name_is_shown_as_it_is(name):
    text = f"x {markdown.escape(name)}"
    (tokens,) = inline(text)
    assert {token.type for token in tokens} <= {"text", "html_inline", "text_special"}
    assert "".join(token.content for token in tokens if token.type != "html_inline") == f"x {name}"
    assert {token.content for token in tokens if token.type == "html_inline"} <= {"<!-- -->"}


@pytest.mark.parametrize("name", ["@team", "#17", "https://a.b", "www.a.b"])
def test_nothing_is_linked(name):
    assert "<!-- -->" in markdown.escape(name)


def test_no_html_but_ours():
    blocks = MarkdownIt("commonmark").enable("table").parse(markdown.render(hostile()))
    inside = {
        token.content for block in blocks for token in block.children or [] if token.type == "html_inline"
    }
    assert inside <= {"<br>", "<!-- -->"}
    whole = [block.content for block in blocks if block.type == "html_block"]
    assert {line.split("<summary>")[0].strip() for line in whole} == {"<details>", "</details>"}
    assert not [line for line in whole if "<script" in line]


def test_a_comment_can_hold_it_however_much_there_is():
    report = sample()
    many = dataclasses.replace(
        report,
        checks=report.checks * 100,
        artifacts=tuple(
            dataclasses.replace(each, path=f"{index}-{'long' * 40}{each.path}")
            for index, each in enumerate(report.artifacts * 30)
        ),
    )
    text = markdown.render(many)
    assert len(text) <= markdown.LIMIT
    assert text.startswith("## Must not ship")
    assert "and 460 more" in text
    assert "Left out for length: " in text
