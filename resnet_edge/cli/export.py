"""``resnet-edge export``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resnet_edge.cli.display import progress, show_result
from resnet_edge.cli.options import export_options, json_option

if TYPE_CHECKING:
    from resnet_edge.pipeline import ExportOptions


@click.command("export", short_help="Write a trained ResNet as TFLite, ONNX and SavedModel.")
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    "bundle",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Folder to write; a bundle that is already there is replaced.",
)
@export_options
@json_option
def command(model: str, bundle: Path, options: ExportOptions, as_json: bool) -> None:
    """Write MODEL as TFLite, ONNX and SavedModel: batch norms folded, every file proven.

    MODEL is a name from `resnet-edge models`, or a .keras or .h5 file. Each file is run in its runtime and
    compared with the model run by Keras before the bundle is complete.

    \b
    resnet-edge export resnet8 --weights fashion-mnist -o bundle
    resnet-edge export my_model.keras -o bundle --preprocess torch --labels labels.txt
    """  # noqa: D301 - \b tells Click to leave the example's lines alone
    # Imported on use: --help needs none of it.
    from resnet_edge.pipeline import export

    with progress(enabled=not as_json) as stages:
        result = export(model, bundle, replace(options, command=("resnet-edge", *sys.argv[1:])), stages)
    show_result(result, as_json=as_json)
