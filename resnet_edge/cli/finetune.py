"""``resnet-edge finetune``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from resnet_edge import stopping
from resnet_edge.cli.options import json_option
from resnet_edge.finetuning.options import FinetuneOptions
from resnet_edge.finetuning.states import has_state


@click.command("finetune", short_help="Train a bundle for int8, with zeros, or with few distinct weights.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "destination",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BUNDLE2",
    help="Folder to write; an older bundle there is replaced.",
)
@click.option(
    "--method",
    required=True,
    type=click.Choice(["qat", "prune", "cluster"]),
    help="qat: train what calibration lost back into an integer recipe. prune: zeros for gzip. "
    "cluster: few distinct weights for gzip.",
)
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="Images to train on: fashion-mnist, a .npz, or a folder of classes.",
)
@click.option(
    "--val",
    "validation",
    metavar="DATA",
    help="Images to choose the best epoch on. Default: one of ten of --data, at most 1,000.",
)
@click.option("--epochs", type=int, required=True, metavar="N", help="Passes over the images.")
@click.option("--learning-rate", type=float, metavar="R", help="Peak of Adam's rate; default by method.")
@click.option("--batch-size", "batch", type=int, default=64, show_default=True, metavar="N")
@click.option("--recipe", metavar="R", help="For qat: which integer recipe of the bundle to train.")
@click.option("--sparsity", type=float, metavar="S", help="For prune: share of zeros, such as 0.5.")
@click.option("--clusters", type=int, metavar="K", help="For cluster: distinct values a layer, such as 32.")
@click.option(
    "--layers",
    multiple=True,
    metavar="PATTERN",
    help="For prune and cluster: layers by name, such as 'layer3*'; may be given several times. "
    "Default: all; for cluster all but the first and the last.",
)
@click.option(
    "--loss",
    type=click.Choice(["distillation", "cross-entropy"]),
    default="distillation",
    show_default=True,
    help="distillation: what the float model says is the goal, no labels needed.",
)
@click.option("--flip", is_flag=True, help="Mirror images at random.")
@click.option("--shift", type=int, default=0, metavar="PIXELS", help="Move images at random, at most so far.")
@click.option(
    "--patience",
    type=int,
    default=5,
    show_default=True,
    metavar="N",
    help="Stop after so many epochs without a better validation loss.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@json_option
def command(bundle: Path, destination: Path, as_json: bool, **settings: Any) -> None:
    """Train the model of a BUNDLE further, and write a new bundle; the next step where --recipe int8 loses.

    The new bundle keeps the original float model as its reference, so `verify` measures the whole loss. The
    zeros of prune and the few values of cluster make files smaller under gzip, and stay in quantized files;
    dense kernels do not become faster by them. An interrupted training goes on when the same command is given
    again.

    \b
    resnet-edge finetune bundle --method qat --data train.npz --epochs 5 -o tuned
    resnet-edge finetune bundle --method prune --sparsity 0.5 --data train.npz --epochs 5 -o pruned
    """  # noqa: D301 - \b tells Click to leave the example's lines alone
    # Imported on use: --help needs none of it.
    from resnet_edge.cli.display import progress, show_result, show_training
    from resnet_edge.pipeline import finetune

    options = FinetuneOptions(command=("resnet-edge", *sys.argv[1:]), **settings)

    def kept() -> str:
        state = has_state(destination)
        return "the same command will go on after the last complete epoch" if state else ""

    with stopping.keeping(kept), progress(enabled=not as_json) as stages:
        result = finetune(bundle, destination, options, stages)
    show_result(result, as_json=as_json)
    if not as_json:
        show_training(result.manifest.finetuned[-1])
