"""``resnet-edge quantize``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_edge.cli.display import progress, show_result
from resnet_edge.cli.options import export_options, json_option

if TYPE_CHECKING:
    from resnet_edge.pipeline import ExportOptions

_OBSERVERS = ("minmax", "moving-average", "percentile", "mse", "entropy")


@click.command("quantize", short_help="Add int8, fp16 and other precisions, each proven.")
@click.argument("model", metavar="BUNDLE|MODEL")
@click.option(
    "-o",
    "--output",
    "bundle",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Folder to write; without it a BUNDLE is changed in place.",
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    required=True,
    metavar="R",
    help="fp16, int8, int8-per-tensor, int16x8 (slow on CPUs: for DSPs), int8-weights, or one of --recipes; "
    "may be given several times.",
)
@click.option(
    "--recipes", "recipe_file", type=click.Path(path_type=Path), metavar="FILE.toml", help="Your recipes."
)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Images like those that the model will see: fashion-mnist, a .npz, or a folder of classes.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Images to calibrate on; up to 256 behind them are held back for the closing run.",
)
@click.option(
    "--observer",
    type=click.Choice(_OBSERVERS),
    default="mse",
    show_default=True,
    help="How a range is chosen from what was seen.",
)
@click.option(
    "--bias-correction/--no-bias-correction",
    default=None,
    help="Take the mean error of rounded weights out of every channel. Default: what the recipe says.",
)
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "learned"]),
    help="learned: choose each layer's integers for the inputs it gets (closer to float; minutes for large "
    "models). Default: learned for small models, nearest for large ones.",
)
@click.option("--strict", is_flag=True, help="Preprocessing that does not fit the model is an error.")
@click.option(
    "--io",
    type=click.Choice(["float32", "int8", "uint8"]),
    default="float32",
    show_default=True,
    help="Type of the artifacts' input and output; uint8 with --fold-input takes camera pixels.",
)
@click.option("--onnx-activations", type=click.Choice(["uint8", "int8"]), default="uint8", show_default=True)
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="PATTERN=RULE",
    help="An exception by layer name, such as 'conv1*=float'; may be given several times.",
)
@export_options
@json_option
def command(model: str, bundle: Path | None, options: ExportOptions, as_json: bool, **settings: Any) -> None:
    """Add quantized artifacts to a BUNDLE, or make a bundle from a MODEL first.

    One calibration and one spec serve every format: the same integers, scales and zero points go into the
    TFLite, ONNX and SavedModel files, which are read back and compared, then run against the float model.

    \b
    resnet-edge quantize bundle --recipe int8 --recipe fp16 --calibration images.npz
    resnet-edge quantize resnet8 --weights fashion-mnist -o bundle --recipe int8
    """  # noqa: D301 - \b tells Click to leave the example's lines alone
    # Imported on use: --help needs none of it.
    from resnet_edge.pipeline import QuantizeOptions, quantize

    options = replace(options, command=("resnet-edge", *sys.argv[1:]))
    wanted = QuantizeOptions(formats=options.formats, **settings)
    with progress(enabled=not as_json) as stages:
        result = quantize(model, bundle, wanted, options, stages)
    show_result(result, as_json=as_json)
