"""``resnet-edge inspect``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from resnet_edge.cli.options import json_option
from resnet_edge.errors import GateFailedError, UsageError


@click.command("inspect", short_help="Show what is in a bundle, a .tflite or a .onnx file.")
@click.argument("path", metavar="BUNDLE|FILE", type=click.Path(path_type=Path))
@click.option("--full-int8", is_flag=True, help="Fail (exit 1) unless all multiply-accumulates are in int8.")
@json_option
def command(path: Path, full_int8: bool, as_json: bool) -> None:
    """Show what is in a bundle, or in any .tflite or .onnx file, also one made by other tools.

    Signature, operators with counts, parameters, MACs, size; for a bundle also the batch norms that were
    folded or kept, and why. For quantized files the share of the work that is done in int8.
    """
    # Imported on use: --help needs none of it.
    from resnet_edge.reports.terminal import show_bundle, show_file

    if path.is_dir():
        if full_int8:
            raise UsageError("--full-int8 looks into one file", where=str(path), next_step="name an artifact")
        from resnet_edge.manifest import read_manifest

        manifest = read_manifest(path).to_json()
        if as_json:
            click.echo(json.dumps(manifest, indent=2, ensure_ascii=False))
        else:
            show_bundle(path, manifest)
        return
    from resnet_edge.inspection.files import inspect_file

    report = inspect_file(path)
    failed = full_int8 and report.int8_mac_share != 1.0
    if not as_json:
        show_file(path, report)
    elif not failed:  # the error is a document of its own, and there is to be one
        click.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    if failed:
        raise GateFailedError(
            "not all of the work is done in int8",
            where=str(path),
            found="no multiply-accumulates"
            if report.int8_mac_share is None
            else f"{report.int8_mac_share:.1%}",
            allowed="100 %",
        )
