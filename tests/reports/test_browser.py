"""The page in a real browser, on a phone and on a desk: it is quiet, it fetches nothing, and it fits."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from resnet_edge.reports import html
from tests.reports.sample import hostile, sample

ROOT = Path(__file__).resolve().parents[2]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

# All text with its size, its colour and the colour behind it. A canvas turns any colour into numbers.
TEXTS = """() => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (color) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = color; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((each) => {
      const style = getComputedStyle(each), drawn = each instanceof SVGElement;
      return {text: each.textContent.trim().slice(0, 40), drawn, size: parseFloat(style.fontSize),
              color: rgb(drawn ? style.fill : style.color), behind: behind(each)};
    });
}"""


@pytest.fixture(scope="module")
def browser():
    """The Chromium that ``make test`` sets up (or ``RESNET_EDGE_CHROMIUM`` points to)."""
    program = ROOT / os.environ.get("RESNET_EDGE_CHROMIUM", ".chromium") / "chromium"
    if not program.exists():
        missing = "no Chromium: `make test` takes it from Debian"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def texts():
    return {"sample": html.render(sample()), "hostile": html.render(hostile())}


class Visit:
    """A page that was opened from a file, and everything that the browser had to say."""

    def __init__(self, browser, path, text, viewport, scheme="light"):
        path.write_text(text, encoding="utf-8")
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport=viewport, color_scheme=scheme)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        # What is folded away is to fit, too.
        self.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        self.requests = [url for url in self.requests if url != path.as_uri() and not url.startswith("data:")]


def luminance(color):
    """Of an sRGB colour, as WCAG 2 defines it."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (c / 255 for c in color[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["sample", "hostile"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_complains_nothing_is_fetched_nothing_overflows(browser, texts, tmp_path, name, viewport):
    visit = Visit(browser, tmp_path / "r.html", texts[name], viewport)
    assert visit.complaints == []
    assert visit.requests == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    wide = visit.page.evaluate(
        "[...document.querySelectorAll('main *, footer *')].filter((each) => !each.closest('.scroll')"
        " && each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML.slice(0, 80))"
    )
    assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(browser, texts, tmp_path, scheme):
    visit = Visit(browser, tmp_path / "r.html", texts["sample"], PHONE, scheme)
    found = visit.page.evaluate(TEXTS)
    assert len(found) > 300
    assert [each for each in found if not each["drawn"] and each["size"] < 16] == []
    # 4.5 is what WCAG 2 asks of text at level AA.
    assert [each for each in found if contrast(each["color"], each["behind"]) < 4.5] == []


def test_plots_are_drawn_in_both_schemes(browser, texts, tmp_path):
    """Each has the page's ink in it: a colour that did not become the page's would be lost in one of them."""
    for scheme, ink in (("light", (24, 32, 43)), ("dark", (230, 234, 240))):
        visit = Visit(browser, tmp_path / "r.html", texts["sample"], PHONE, scheme)
        plots = visit.page.locator("svg").all()
        assert len(plots) == 5
        for plot in plots:
            colors = Image.open(io.BytesIO(plot.screenshot())).convert("RGB").getcolors(1 << 20)
            assert colors
            assert len(colors) > 20
            assert ink in {color for _, color in colors}


def test_tables_scroll_by_themselves_and_keep_the_name_in_sight(browser, texts, tmp_path):
    visit = Visit(browser, tmp_path / "r.html", texts["sample"], PHONE)
    region = visit.page.get_by_role("region", name="Artifacts")
    assert region.evaluate("(each) => each.scrollWidth > each.clientWidth + 200")
    region.evaluate("(each) => { each.scrollLeft = 300 }")
    name = region.get_by_role("rowheader").nth(1).bounding_box()
    assert name
    assert 0 <= name["x"] < 40


def test_the_policy_stops_what_gets_past_the_template(browser, texts, tmp_path):
    """The guard behind the escaping; it also shows that complaints and requests are seen at all."""
    attack = "<script>document.title = 'owned'</script><img src='https://example.org/a.png'>"
    text = texts["sample"].replace("<main>", f"<main>{attack}", 1)
    visit = Visit(browser, tmp_path / "r.html", text, DESK)
    assert visit.page.title() == "Must not ship: resnet8-bundle"
    assert len([each for each in visit.complaints if "Content Security Policy" in each]) == 2
