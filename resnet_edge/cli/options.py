"""Options that several commands share, and the types they parse to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from resnet_edge.pipeline import ExportOptions

Command = Callable[..., Any]


class InputShape(click.ParamType[tuple[int, int, int]]):
    """``H,W,C``."""

    name = "H,W,C"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int]:
        """Three positive numbers."""
        if isinstance(value, tuple):
            return value
        try:
            height, width, channels = (int(part) for part in str(value).replace("x", ",").split(","))
        except ValueError:
            self.fail(f"{value!r} is not three numbers such as 224,224,3", param, ctx)
        if min(height, width, channels) < 1:
            self.fail(f"{value!r} has a number below 1", param, ctx)
        return height, width, channels


class Batch(click.ParamType[int | None]):
    """A number of images, or ``dynamic``, which is None."""

    name = "1|N|dynamic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """A number, or None for ``dynamic``."""
        if value is None or value == "dynamic":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'dynamic'", param, ctx)


_FILE = click.Path(path_type=Path)

_MODEL_OPTIONS = (
    click.option(
        "--weights",
        metavar="W",
        help="For a registry model: a file (.keras, .h5, .npz, .safetensors, "
        ".pt, ...), imagenet, or fashion-mnist. Default: random, with a warning.",
    ),
    click.option(
        "--input-shape", type=InputShape(), help="Size of the image where the model leaves it open."
    ),
    click.option("--classes", type=click.IntRange(min=1), help="Number of classes of a registry model."),
    click.option(
        "--width",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        show_default=True,
        help="Factor on the channels of a registry model.",
    ),
    click.option(
        "--shortcut", type=click.Choice(["A", "B"]), help="Shortcut of the CIFAR models: A pads, B projects."
    ),
    click.option(
        "--preprocess",
        metavar="P",
        help="What happens to pixels before the model: raw, unit, tf, caffe, "
        "torch or MEAN/STD. Default: what the weights were trained with; raw for a bare file.",
    ),
    click.option(
        "--fold-input", is_flag=True, help="The normalization goes into the files: they take pixels 0..255."
    ),
    click.option("--labels", type=_FILE, metavar="FILE", help="Names of the classes, one a line."),
    click.option(
        "--custom-objects",
        type=_FILE,
        metavar="FILE.py",
        help="Your Python file with the layers that MODEL needs. It is run: give only code you trust.",
    ),
    click.option(
        "--allow-unsafe-code",
        is_flag=True,
        help="Let code inside the model file (Lambda layers) run. Only for files you made yourself.",
    ),
)

_FILE_OPTIONS = (
    click.option(
        "--format",
        "formats",
        multiple=True,
        metavar="tflite|onnx|savedmodel|all",
        help="What to write; may be given several times. Default: all installed formats.",
    ),
    click.option("--batch", type=Batch(), default="1", show_default=True, help="Images a run."),
    click.option("--no-fold", is_flag=True, help="Keep batch norms as they are."),
    click.option("--opset", type=int, default=17, show_default=True, help="ONNX operator set."),
    click.option(
        "--onnx-layout",
        type=click.Choice(["nchw", "nhwc"]),
        default="nchw",
        show_default=True,
        help="Layout of the ONNX file's input.",
    ),
)


def export_options(command: Command) -> Command:
    """Every option of ``export``, for each command that writes a MODEL; handed over as ``options``."""
    return _with_options(command, (*_FILE_OPTIONS, *_MODEL_OPTIONS))


def model_options(command: Command) -> Command:
    """The options about a MODEL that is only run; handed over as ``options``."""
    return _with_options(command, _MODEL_OPTIONS)


def _with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    @functools.wraps(command)
    def wrapped(*args: Any, no_fold: bool = False, **values: Any) -> Any:
        names = ExportOptions.__dataclass_fields__.keys() & values.keys()
        chosen = {name: values.pop(name) for name in names}
        return command(*args, options=ExportOptions(fold=not no_fold, **chosen), **values)

    result: Command = wrapped
    for option in reversed(options):
        result = option(result)
    return result


def json_option(command: Command) -> Command:
    """``--json``: one machine-readable document on stdout and nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")(
        command
    )
