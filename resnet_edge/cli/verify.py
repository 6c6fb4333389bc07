"""``resnet-edge verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_edge import stopping
from resnet_edge.cli.display import progress
from resnet_edge.cli.options import json_option, model_options
from resnet_edge.errors import ConversionFailedError

if TYPE_CHECKING:
    from resnet_edge.pipeline import ExportOptions
    from resnet_edge.verification.report import Report


@click.command("verify", short_help="Say whether exported files may ship, with every number proven.")
@click.argument("target", metavar="BUNDLE|FILE", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="MODEL", help="The float model of a FILE: a .keras or .h5 file, or a bundle."
)
@click.option(
    "--artifact",
    "artifacts",
    multiple=True,
    metavar="GLOB",
    help="Which files of the bundle, such as '*-int8.*'; may be given several times. Default: all.",
)
@click.option(
    "--data",
    metavar="DATA",
    help="Images, best with labels: fashion-mnist, a .npz, or a folder of classes. Default: the images held "
    "back at calibration.",
)
@click.option("--samples", type=click.IntRange(min=1), help="Images to use, every class in its share.")
@click.option(
    "--runner",
    "runners",
    multiple=True,
    default=("local",),
    show_default=True,
    metavar="RUNNER",
    help="Where to run; may be given several times.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="RUNNER|RUNTIME",
    help="What must be there (litert, onnxruntime, tensorflow, or a runner) rather than be skipped.",
)
@click.option("--max-drop", type=float, metavar="PP", help="Top-1 accuracy that may be lost, in points.")
@click.option(
    "--min-agreement", type=float, metavar="PCT", help="Images with the float prediction, in percent."
)
@click.option("--min-sqnr", type=float, metavar="DB", help="Signal over quantization noise, in dB.")
@click.option("--max-error", type=float, metavar="X", help="Largest difference of an output.")
@click.option("--min-speedup", type=float, metavar="X", help="Times as fast as float32; implies --latency.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of intervals and decisions.")
@click.option("--layers", is_flag=True, help="Compare layer by layer: where does the error arise?")
@click.option(
    "--bisect",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the worst operator as a file of its own, with inputs and a script; implies --layers.",
)
@click.option("--latency", is_flag=True, help="Measure times and memory.")
@click.option(
    "--kernels",
    type=click.Choice(["xnnpack", "reference"]),
    default="xnnpack",
    show_default=True,
    help="What computes .tflite files: what phones use, or LiteRT's slow reference kernels.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of every runtime. Default: all cores.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.html|.md|.json|.xml",
    help="Write a report; may be given several times.",
)
@model_options
@json_option
def command(
    target: Path, reports: tuple[Path, ...], options: ExportOptions, as_json: bool, **settings: Any
) -> int:
    """Say whether the files of a BUNDLE may ship, and if not, where they go wrong.

    Every file runs beside your own float model; parity, accuracy with intervals and gates come out. A FILE of
    any other tool is verified --against the model that it was made from.

    \b
    resnet-edge verify bundle --data images.npz --max-drop 0.5 --layers --latency --report report.html
    resnet-edge verify model.tflite --against model.keras --preprocess torch --data images.npz

    Exit code: 0 all gates passed, 1 one failed, 7 too few images to decide (says how many more), 4 a required
    runtime is missing, 6 a required runner does not answer.
    """  # noqa: D301 - \b tells Click to leave the example's lines alone
    # Imported on use: --help needs none of it.
    from resnet_edge.pipeline import VerifyOptions, verify
    from resnet_edge.reports.writing import check_report_path, write_report

    for path in reports:
        check_report_path(path)
    wanted = VerifyOptions(command=("resnet-edge", *sys.argv[1:]), **settings)
    written: list[str] = []

    def kept() -> str:
        found = f"written: {', '.join(written)}" if written else "no report was written"
        return f"{found}; what is cached for the next time is kept"

    with stopping.keeping(kept):
        with progress(enabled=not as_json) as stages:
            report = verify(target, wanted, options, stages)
        # Shown first: a full disk is not to take the result of an hour's run with it.
        _show(report, as_json=as_json)
        code = report.exit_code
        for path in reports:
            try:
                write_report(report, path)
                written.append(str(path))
            except ConversionFailedError as error:  # said here: the one document of --json is out already
                click.echo(f"error: {error.render()}", err=True)
                code = error.exit_code
    return code


def _show(report: Report, *, as_json: bool) -> None:
    """The report on standard output."""
    if as_json:
        from resnet_edge.reports.json_report import render

        click.echo(render(report), nl=False)
    else:
        from resnet_edge.reports.verification_terminal import show_report

        show_report(report)
