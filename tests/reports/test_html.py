"""The page as text: nothing runs, nothing is fetched, names stay text, and equal reports give equal bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from resnet_edge.reports import html, plots
from resnet_edge.verification.report import Report
from tests.reports.sample import hostile, sample

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """Elements with their attributes, and the text that is seen."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page():
    return Page(html.render(sample()))


@pytest.fixture(scope="module")
def bad():
    return Page(html.render(hostile()))


def test_the_verdict_and_the_reasons_come_before_all_figures(page):
    places = [page.text.index(text) for text in ("Must not ship", "SQNR is 14.1 dB", "118.6 dB")]
    assert places == sorted(places)


@pytest.mark.parametrize("which", ["page", "bad"])
def test_nothing_runs_and_nothing_is_fetched(which, request):
    page = request.getfixturevalue(which)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert re.match(r"data:|#", attributes.get(name) or "#")
    policies = [each["content"] for each in page.all("meta") if "http-equiv" in each]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    styles = " ".join(attributes.get("style") or "" for _, attributes in page.elements)
    assert not re.search(r"url\((?!#)|@import", styles + page.text)


def test_names_are_text(bad):
    assert bad.text.count('<script>alert("1")</script>') > 50
    assert "\x1b" not in bad.text
    assert "\u202e" not in bad.text


def test_it_can_be_read_aloud(page):
    assert page.all("html") == [{"lang": "en"}]
    assert all(each.get("alt") for each in page.all("img"))
    plots_ = page.all("svg")
    assert len(plots_) == 5
    assert all(each["role"] == "img" and len(each["aria-label"]) > 40 for each in plots_)
    assert {each.get("scope") for each in page.all("th")} == {"col", "row"}
    regions = [each for each in page.all("div") if each.get("role") == "region"]
    assert len(regions) == len(page.all("table"))
    assert all(each["aria-label"] and each["tabindex"] == "0" for each in regions)


def test_ids_are_unique_and_all_that_is_referred_to_is_there(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {attributes["xlink:href"][1:] for attributes in page.all("use")}
    used |= set(re.findall(r"url\(#([\w-]+)\)", str(page.elements)))
    assert used == set(ids)


def test_plots_have_the_colours_of_the_page(page):
    styles = " ".join(attributes.get("style") or "" for _, attributes in page.elements)
    assert "currentColor" in styles
    assert "var(--series-1)" in styles
    # What is left of fixed colours are Matplotlib's white and black behind what is transparent or not drawn.
    assert not re.search(r"#0[12]0a0", styles)


def test_equal_reports_give_equal_bytes_whatever_the_user_set(tmp_path):
    code = (
        "import hashlib, sys; from resnet_edge.reports import html; from tests.reports.sample import sample\n"
        "digest = hashlib.sha256(html.render(sample()).encode()).hexdigest()\n"
        "print(digest, 'matplotlib.pyplot' in sys.modules)\n"
    )
    settings = tmp_path / "matplotlibrc"
    settings.write_text("font.size: 30\naxes.facecolor: red\nsvg.fonttype: path\n")
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "MATPLOTLIBRC": str(settings), "PYTHONHASHSEED": "1"},
    ).stdout.split()
    assert other == [hashlib.sha256(html.render(sample()).encode()).hexdigest(), "False"]


def test_the_users_matplotlib_is_left_as_it_was():
    import matplotlib as mpl

    before = mpl.rcParams.copy()
    html.render(sample())
    assert mpl.rcParams.copy() == before


def test_without_labels_sqnr_is_plotted():
    report = sample()
    unlabelled = dataclasses.replace(
        report, artifacts=tuple(dataclasses.replace(each, accuracy=None) for each in report.artifacts)
    )
    plot = plots.trade_off(unlabelled, "size")
    assert plot is not None
    assert plot.title == "SQNR against size"
    assert "resnet8-int8.onnx: 29.6 dB at 102 kB" in plot.description


def test_a_report_with_nothing_in_it():
    report = sample()
    empty = Report(
        subject="b",
        model="m",
        reference="r",
        data=report.data,
        confidence=0.95,
        machines={},
        artifacts=(),
        checks=(),
    )
    page = Page(html.render(empty))
    assert "nothing was checked" in page.text
    assert not page.all("table")
    assert not page.all("svg")
    assert plots.trade_off(empty, "latency") is None
    assert plots.waterfall(empty) is None


def test_a_wheel_holds_the_templates(tmp_path):
    build = f"import hatchling.build; hatchling.build.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], check=True, capture_output=True, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    folder = ROOT / "resnet_edge" / "reports" / "templates"
    wanted = {path.relative_to(ROOT).as_posix() for path in folder.iterdir()}
    assert len(wanted) == 3
    with zipfile.ZipFile(wheel) as archive:
        assert wanted <= set(archive.namelist())
