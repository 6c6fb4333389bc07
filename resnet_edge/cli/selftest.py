"""``resnet-edge selftest``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from resnet_edge.cli.display import progress
from resnet_edge.cli.options import json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnet_edge.verification.selftest import Finding


@click.command("selftest", short_help="Show that verify catches and names known faults.")
@json_option
def command(as_json: bool) -> int:
    """Put known faults into a small bundle, one at a time, and see that verify catches and names each.

    Wrong scales and zero points, swapped and transposed weights, batch norms not folded, colours in the wrong
    order, damaged and missing files, and more, most of them with digests that fit.

    Exit code: 0 all were caught and named, 1 one was not.
    """
    # Imported on use: --help needs none of it.
    from resnet_edge.verification.selftest import run_selftest

    with progress(enabled=not as_json) as stages:
        findings = run_selftest(stages)
    found = all(finding.caught and finding.named for finding in findings)
    if as_json:
        document = {
            "kind": "resnet-edge selftest",
            "passed": found,
            "findings": [asdict(finding) for finding in findings],
            "seconds": stages.seconds,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        _show(findings)
    return 0 if found else 1


def _show(findings: Sequence[Finding]) -> None:
    """One line a fault, and the whole answer where it was not good enough."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("fault", "how it comes about", "caught", "named", box=box.SIMPLE_HEAD, pad_edge=False)
    for finding in findings:
        table.add_row(finding.fault, finding.story, _mark(finding.caught), _mark(finding.named))
    console.print(table)
    for finding in findings:
        if not (finding.caught and finding.named):
            console.print(f"{finding.fault}: verify said:\n{finding.said or '(nothing)'}", markup=False)
    caught = sum(finding.caught and finding.named for finding in findings)
    console.print(f"{caught} of {len(findings)} faults caught and named; the healthy bundle passes")


def _mark(good: bool) -> str:
    return "[green]yes[/]" if good else "[red]NO[/]"
