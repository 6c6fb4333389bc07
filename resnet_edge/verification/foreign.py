"""A file that any tool made, beside the float model that it is meant to be.

Nothing says how such a file was made: its format, precision and layout, and whether it gives logits or
probabilities, are told from its content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from resnet_edge.converters import load_converter
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import ModelRejectedError
from resnet_edge.inspection.files import file_format, inspect_file
from resnet_edge.inspection.precision import guess_precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.engines import Engine
    from resnet_edge.graph.geometry import Shape
    from resnet_edge.inspection.files import FileFormat
    from resnet_edge.inspection.precision import Precision
    from resnet_edge.inspection.report import FileReport, TensorInfo
    from resnet_edge.verification.against import FloatModel

Layout: TypeAlias = Literal["nhwc", "nchw"]

_SUM_SLACK = 0.01
"""How far the sum of float probabilities may be from 1: a thousand classes in float16 come to less."""

_STEP = 1 / 256
"""Of a softmax in 8 bits; every class may be off by half of it."""

_ROWS = 1000
"""Images whose outputs are looked at: there may be more than fit into memory."""

_RANGE_SLACK = 0.05
"""Part of an integer input's range that model inputs may lie beyond it: a range search cuts off as much."""


@dataclass(frozen=True, kw_only=True)
class ForeignFile:
    """A file that any tool made.

    Attributes:
        path: Where it is.
        format: By its content, whatever its name.
        precision: Guessed from its content, named like the recipe that comes to the same.
        report: What is in it.
        input: What it takes.
        output: What it gives.
        layout: Of its image.
        image_shape: (height, width, channels).
        classes: Outputs an image.
    """

    path: Path
    format: FileFormat
    precision: Precision
    report: FileReport
    input: TensorInfo
    output: TensorInfo
    layout: Layout
    image_shape: Shape
    classes: int

    def open(self, *, threads: int = 1) -> Engine:
        """The file in its runtime.

        Raises:
            DependencyMissingError: The runtime is not installed.
            ModelRejectedError: The runtime does not accept the file.
        """
        return load_converter(self.format).open(self.path, threads=threads)

    @property
    def output_step(self) -> float | None:
        """What one integer step of the output is worth; None for a float output."""
        quantization = self.output.quantization
        return quantization.scales[0] if quantization is not None else None

    def describe(self) -> str:
        """What was found, in one line for people."""
        share = self.report.int8_mac_share
        part = f" ({share:.0%} of the multiply-accumulates)" if self.precision == "int8" and share else ""
        height, width, channels = self.image_shape
        return (
            f"{self.format}, {self.precision}{part}; takes {self.input.dtype} {height}x{width}x{channels} "
            f"({self.layout.upper()}), gives {self.classes} values in {self.output.dtype}"
        )


def open_foreign(path: Path) -> ForeignFile:
    """Look into a file and run it once, on zeros.

    Raises:
        DependencyMissingError: The file's runtime is not installed.
        ModelRejectedError: The file cannot be read, is not accepted by its runtime, or does not go from one
            image of a fixed size to one vector of classes.
    """
    kind, report = file_format(path), inspect_file(path)
    with load_converter(kind).open(path, threads=usable_cores()) as engine:
        # The runtime has accepted it: one image of rank 4, one output.
        layout, shape = _image(kind, report, path)
        outputs = engine.run(np.zeros((1, *shape), np.float32))
    if outputs.ndim != 2:
        raise ModelRejectedError(
            "the file does not give one value a class",
            where=str(path),
            found=f"an output of shape {outputs.shape} for one image",
            allowed="(N, classes)",
            next_step="export the model with a classifying head",
        )
    return ForeignFile(
        path=path,
        format=kind,
        precision=guess_precision(path),
        report=report,
        input=report.inputs[0],
        output=report.outputs[0],
        layout=layout,
        image_shape=shape,
        classes=outputs.shape[1],
    )


def _image(kind: FileFormat, report: FileReport, path: Path) -> tuple[Layout, Shape]:
    """The layout of a file's image and its (height, width, channels)."""
    extents = report.inputs[0].shape[1:]
    fixed = [extent for extent in extents if isinstance(extent, int)]
    if len(fixed) != len(extents):
        raise ModelRejectedError(
            "the file leaves the size of its image open",
            where=str(path),
            found=str(report.inputs[0].shape),
            next_step="export it with a fixed height and width",
        )
    if kind == "onnx":
        from resnet_edge.engines.onnx import takes_nchw  # deferred: brings ONNX Runtime's module in

        if takes_nchw(report.metadata, fixed):
            return "nchw", (*fixed[1:], fixed[0])
    return "nhwc", tuple(fixed)


def check_match(file: ForeignFile, model: FloatModel, contract: Preprocessing) -> tuple[str, ...]:
    """See that a file can have been made from a model; what is odd but possible is returned as notes.

    Args:
        file: The file.
        model: The float model.
        contract: What is done to an image before the file sees it.

    Raises:
        ModelRejectedError: It takes images of another size, or gives another number of classes.
    """
    differences: list[tuple[str, object, object]] = []
    if file.image_shape != model.image_shape:
        differences.append(("takes images", file.image_shape, model.image_shape))
    if file.classes != model.classes:
        differences.append(("gives classes", file.classes, model.classes))
    if differences:
        raise ModelRejectedError(
            "the file was not made from this model",
            where=f"{file.path} --against {model.name}",
            found="; ".join(f"it {what}: {ours}" for what, ours, _ in differences),
            allowed="; ".join(f"as the model {what}: {theirs}" for what, _, theirs in differences),
            next_step="name the model that the file was converted from",
        )
    return _range_notes(file, contract)


def _range_notes(file: ForeignFile, contract: Preprocessing) -> tuple[str, ...]:
    """Whether model inputs fit an integer input's range; another contract at conversion shows here first."""
    quantization = file.input.quantization
    if quantization is None:
        return ()
    limits = np.iinfo(file.input.dtype)
    ends = np.array([limits.min, limits.max]) - quantization.zero_points[0]
    low, high = ends * quantization.scales[0]
    scale, offset = contract.affine()
    inputs = np.stack([offset, offset + 255 * scale])
    slack = _RANGE_SLACK * (high - low)
    if inputs.min() >= low - slack and inputs.max() <= high + slack and np.ptp(inputs) >= (high - low) / 4:
        return ()
    made = f"{inputs.min():.4g} to {inputs.max():.4g}"
    note = (
        f"the file's input holds {low:.4g} to {high:.4g}, but the contract "
        f"{contract.describe()!r} makes {made} of pixels: check --preprocess"
    )
    return (note,)


def are_probabilities(outputs: NDArray[np.float32]) -> bool:
    """Whether outputs (N, classes) came out of a softmax, in 8 bits perhaps; rows with NaN tell nothing."""
    first = outputs[:_ROWS]
    finite = first[np.isfinite(first).all(axis=1)]
    slack = _SUM_SLACK + outputs.shape[1] * _STEP / 2
    within = bool((finite >= -_SUM_SLACK).all() and (finite <= 1 + _SUM_SLACK).all())
    return bool(len(finite)) and within and bool((np.abs(finite.sum(axis=1) - 1) <= slack).all())


def make_comparable(
    reference: NDArray[np.float32], outputs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
    """Bring the outputs (N, classes) of a model and a file to probabilities where one of them gives logits.

    Returns:
        The reference's outputs, the file's, and what was done, for people; empty where nothing was.
    """
    from scipy.special import softmax  # deferred: few files need it

    theirs, ours = are_probabilities(reference), are_probabilities(outputs)
    if theirs == ours:
        return reference, outputs, ""
    logits, probabilities = ("file", "model") if theirs else ("model", "file")
    note = (
        f"the {probabilities} gives probabilities and the {logits} logits: compared after a softmax of these"
    )
    if theirs:
        return reference, softmax(outputs, axis=1), note
    return softmax(reference, axis=1), outputs, note
