"""Matplotlib figures as SVG that is part of a page, in its font and its colours, light and dark."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes

WIDTH = 360
"""Units of the view box: about the pixels of a phone, where a unit is then a pixel."""

INK, MUTED, GRID, BAD = "#010a01", "#010a02", "#010a03", "#010a04"
SERIES = ("#020a01", "#020a02", "#020a03", "#020a04", "#020a05")
"""Stand-ins that become the page's variables; nobody else uses such colours."""

_VARIABLES: Mapping[str, str] = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    BAD: "var(--fail)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)},
}

_STYLE: Mapping[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, read aloud, and in the page's font
    "text.parse_math": False,  # a dollar in a file's name is a dollar
    "font.size": 14,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}

_NAMESPACE = "http://www.w3.org/2000/svg"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot for a page.

    Attributes:
        title: What is plotted.
        description: The same in words, for those who cannot see it.
        svg: An ``<svg>`` element.
    """

    title: str
    description: str
    svg: str


def draw(title: str, description: str, height: float, paint: Callable[[Axes], None]) -> Plot:
    """Run ``paint`` on the axes of a new figure of ``WIDTH`` x ``height`` units.

    Matplotlib is imported here, and the user's own settings of it neither matter nor change. The same
    ``paint`` gives the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        # The salt makes the ids of a page's plots different from each other and the same in every run.
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": title})
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's font will have it
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    return Plot(
        title=title, description=description, svg=_embed(stream.getvalue(), f"{title}. {description}")
    )


def _embed(text: str, label: str) -> str:
    """The figure as an element of a page: labelled, scalable, in the page's colours, without unused ids."""
    ET.register_namespace("", _NAMESPACE)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(text)  # noqa: S314 - Matplotlib has just written it
    for parent in list(root.iter()):
        for child in list(parent):
            # A style sheet in the middle of a page is one for the whole page.
            if child.tag in (f"{{{_NAMESPACE}}}metadata", f"{{{_NAMESPACE}}}style"):
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", text))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        style = element.get("style")
        if style:
            element.set("style", re.sub(r"#0[12]0a0\d", lambda found: _VARIABLES[found[0]], style))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ET.tostring(root, encoding="unicode")
