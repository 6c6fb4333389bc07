"""The command line: parses, calls one function, renders. Imports no framework until a command runs."""

from __future__ import annotations

import gc
import json
import signal
import sys
from typing import Any, NoReturn

import click

from resnet_edge import stopping
from resnet_edge.cli.groups import LazyGroup
from resnet_edge.errors import ResnetEdgeError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


@click.group(
    cls=LazyGroup,
    commands_by_name={
        "export": ("resnet_edge.cli.export", "Write a trained ResNet as TFLite, ONNX and SavedModel."),
        "quantize": ("resnet_edge.cli.quantize", "Add int8, fp16 and other precisions, each proven."),
        "verify": (
            "resnet_edge.cli.verify",
            "Say whether exported files may ship, with every number proven.",
        ),
        "finetune": (
            "resnet_edge.cli.finetune",
            "Train a bundle for int8, with zeros, or with few distinct weights.",
        ),
        "inspect": ("resnet_edge.cli.inspect", "Show what is in a bundle, a .tflite or a .onnx file."),
        "models": ("resnet_edge.cli.models", "List the ResNets that can be built by name."),
        "runners": (
            "resnet_edge.cli.runners",
            "List, set up and probe the machines that artifacts run on.",
        ),
        "selftest": ("resnet_edge.cli.selftest", "Show that verify catches and names known faults."),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="resnet-edge")
def cli() -> None:
    """Export, quantize and verify ResNets for phones, boards and cameras.

    One folded float graph becomes every format, and each file is proven by running it.
    """


def main() -> NoReturn:
    """Run the command line; every failure becomes one message and its exit code."""
    stopping.listen()
    try:
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except ResnetEdgeError as error:
        code = error.exit_code
        _report(f"error: {error.render()}", {**error.fields(), "exit_code": code})
    except click.ClickException as error:
        code = error.exit_code
        error.show()
        _report_json({"what": error.format_message(), "exit_code": code})
    except (KeyboardInterrupt, click.Abort) as stop:
        code = INTERRUPTED
        _report_stop("interrupted", stop, code)
    except stopping.Terminated as stop:
        code = 128 + signal.SIGTERM
        _report_stop("terminated", stop, code)
    # The process ends: the last search for unreachable cycles takes half a second where TensorFlow is loaded.
    gc.freeze()
    sys.exit(code)


def _report_stop(what: str, stop: BaseException, code: int) -> None:
    """The end by a signal, and what it leaves."""
    kept = stopping.kept(stop)
    _report(f"{what}: {kept}", {"what": what, "kept": kept, "exit_code": code})


def _report(message: str, fields: dict[str, Any]) -> None:
    """One error, on stderr; with ``--json`` also as the one document on stdout."""
    click.echo(message, err=True)
    _report_json(fields)


def _report_json(fields: dict[str, Any]) -> None:
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": fields}, ensure_ascii=False, indent=2))
