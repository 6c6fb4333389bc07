"""``resnet-edge models``."""

from __future__ import annotations

import click

from resnet_edge.cli.options import json_option


@click.command("models", short_help="List the ResNets that can be built by name.")
@json_option
def command(as_json: bool) -> None:
    """List the ResNets that can be built by name: parameters, MACs, input, weights on offer."""
    from resnet_edge.models.registry import MODELS

    if not as_json:
        from resnet_edge.reports.terminal import show_models

        show_models(MODELS.values())
        return
    import json
    from dataclasses import asdict

    click.echo(json.dumps([asdict(spec) for spec in MODELS.values()], indent=2))
