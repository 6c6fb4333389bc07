"""A verification as one HTML file that needs no network and runs no script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from resnet_edge.reports import figures, plots, sentences, tables

if TYPE_CHECKING:
    from resnet_edge.reports.svg import Plot
    from resnet_edge.verification.report import Report


def render(report: Report) -> str:
    """The page: may it ship and why not, the artifacts side by side, then all that was measured.

    Every text is escaped by the template, which also forbids the browser scripts and requests.
    """
    environment = Environment(
        loader=PackageLoader("resnet_edge.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = figures.plain
    environment.filters["percent"] = figures.percent
    template = environment.get_template("report.html.j2")
    return template.render(
        report=report,
        sentences=sentences,
        tables=tables,
        trade_offs=_trade_offs(report),
        waterfall=plots.waterfall(report),
        layer_plots=[
            plots.layers(tables.place_of(report, each), each.layers)
            for each in report.artifacts
            if each.layers
        ],
    )


def _trade_offs(report: Report) -> list[Plot]:
    costs: tuple[Literal["size", "latency"], ...] = ("size", "latency")
    return [plot for cost in costs if (plot := plots.trade_off(report, cost))]
