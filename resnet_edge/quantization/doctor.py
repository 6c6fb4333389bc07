"""Recognizes images that were prepared in another way than the model's training images, without labels.

A batch norm remembers the mean and the variance of what it was given in training. Images prepared alike lead
to about the same; pixels on another scale, swapped channels or inverted images do not. So the first layers
are run on the images as they are, and as they would be after each of the usual mistakes was undone. What
fits the remembered statistics clearly better than the images as they are names the mistake.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import UsageError
from resnet_edge.graph import Graph
from resnet_edge.graph.geometry import ShapeError
from resnet_edge.graph.operators import BatchNorm, Input
from resnet_edge.passes import run_passes
from resnet_edge.quantization.observed_session import ObservedSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph.geometry import Shape
    from resnet_edge.quantization.observed_session import StoredTensor

    Inputs = NDArray[np.float32]

IMAGES = 128
"""So many are looked at; fewer where the first layers are expensive."""

LEAST_IMAGES = 16
"""Fewer say too little about the mean of all."""

WINDOW = 96
"""Of larger images, a window of so many rows and columns is looked at; convolutions see no difference."""

BATCH_NORMS = 2
"""The first ones. Behind them, what is wrong with the image shows less and less."""

CLEARLY_BETTER = 1.2
"""An explanation counts if the images as they are fit that many times worse. Measured on trained networks,
the weakest mistake (swapped channels) gives at least 1.4 with 128 images and 1.2 with 64; correct images give
at most 0.7 with 128, 0.8 with 64, and 1.0 with 16."""

GOOD_FIT = 0.6
"""An explanation that fits worse than this is none. Correct images give 0.05 to 0.25."""

NO_FIT = 1.0
"""Images that fit worse than this are reported even without an explanation."""

_CONTRACTS = ("raw", "unit", "tf", "torch", "caffe")
_BUDGET = 10**9
"""Multiply-accumulates for each variant: half a second in all on two cores."""
_VARIANCE_WEIGHT = 0.3
"""Training augments images, which changes variances more than means."""
_CAP = 3.0
"""More than three standard deviations, or a factor of 20 in variance, are not worse than that."""


class Kind(enum.StrEnum):
    """What may be wrong with the images."""

    NOTHING = "nothing"
    SCALE = "scale"
    NORMALIZATION = "normalization"
    CHANNEL_ORDER = "channel-order"
    INVERTED = "inverted"
    UNEXPLAINED = "unexplained"
    NOT_EXAMINED = "not-examined"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The doctor's finding.

    Attributes:
        kind: The likely mistake.
        message: For people; empty if nothing is wrong.
        evidence: How badly the images fit as they are (``as given``) and under each explanation: mean over
            channels of the distance from the remembered mean, in standard deviations, plus a part of the
            logarithm of the variances' ratio.
    """

    kind: Kind
    message: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to report."""
        return self.kind in (Kind.NOTHING, Kind.NOT_EXAMINED)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Variant:
    """The images with one mistake undone."""

    kind: Kind
    mistake: str
    inputs: Inputs


def examine(imported: Graph, model_inputs: Inputs, preprocessing: Preprocessing) -> Diagnosis:
    """Compare what the first batch norms get with what they got in training.

    Args:
        imported: As the import leaves it, with its batch norms.
        model_inputs: (N, height, width, channels), as calibration takes them; the first ones are used,
            and fewer than ``LEAST_IMAGES`` are not examined.
        preprocessing: The contract under which they were made.

    Raises:
        ModelRejectedError: A weight cannot be used; names the tensor.
    """
    beginning = _beginning(imported)
    if beginning is None or len(model_inputs) < LEAST_IMAGES:
        return Diagnosis(kind=Kind.NOT_EXAMINED)
    images = min(IMAGES, max(LEAST_IMAGES, _BUDGET // max(beginning.macs, 1)))
    inputs = _windows(model_inputs[:images], beginning.input_shape)
    session = ObservedSession(beginning, usable_cores())
    variants = list(_variants(inputs, preprocessing))
    given = _misfit(beginning, session, inputs)
    misfits = [_misfit(beginning, session, variant.inputs) for variant in variants]
    mistakes = [variant.mistake for variant in variants]
    evidence = {"as given": given, **dict(zip(mistakes, misfits, strict=True))}
    best = int(np.argmin(misfits))
    if misfits[best] < GOOD_FIT and given > CLEARLY_BETTER * misfits[best]:
        return _explained(variants[best], evidence)
    if given > NO_FIT:
        return Diagnosis(kind=Kind.UNEXPLAINED, message=_unexplained(given), evidence=evidence)
    return Diagnosis(kind=Kind.NOTHING, evidence=evidence)


def _beginning(imported: Graph) -> Graph | None:
    """The graph up to the first batch norms, with them; None where there is none that was trained."""
    norms = [node for node in imported.nodes if isinstance(node.op, BatchNorm)][:BATCH_NORMS]
    if not norms or not any(_is_trained(node.op) for node in norms if isinstance(node.op, BatchNorm)):
        return None
    nodes = imported.nodes[: imported.nodes.index(norms[-1]) + 1]
    height, width, channels = imported.input_shape
    small = replace(nodes[0], op=Input(shape=(min(height, WINDOW), min(width, WINDOW), channels)))
    try:
        cut = Graph(name=imported.name, nodes=(small, *nodes[1:]), output=norms[-1].name)
    except ShapeError:  # something in between takes one size only
        cut = Graph(name=imported.name, nodes=nodes, output=norms[-1].name)
    return run_passes(cut, fold=False).graph


def _windows(inputs: Inputs, shape: Shape) -> Inputs:
    """A part of each image, (N, *shape), from places that spread evenly over the images' area."""
    (height, width), count = inputs.shape[1:3], len(inputs)
    # Multiples of these fractions fill a square evenly (Roberts, "The Unreasonable Effectiveness of
    # Quasirandom Sequences", 2018).
    tops = (np.arange(count) * 0.7548776662 % 1 * (height - shape[0] + 1)).astype(int)
    lefts = (np.arange(count) * 0.5698402910 % 1 * (width - shape[1] + 1)).astype(int)
    windows = [
        image[top : top + shape[0], left : left + shape[1]]
        for image, top, left in zip(inputs, tops, lefts, strict=True)
    ]
    return np.stack(windows).astype(np.float32)


def _is_trained(op: BatchNorm) -> bool:
    return bool(op.mean.any()) or bool((op.variance != 1).any())


def _misfit(beginning: Graph, session: ObservedSession, inputs: Inputs) -> float:
    """How far what the batch norms get is from what they remember; 0 is a perfect fit."""
    # One image a run keeps memory small; the sums of values and of squares are all that is needed.
    sums: dict[str, NDArray[np.float64]] = {}
    norms = [(node.inputs[0], node.op) for node in beginning.nodes if isinstance(node.op, BatchNorm)]
    for image in inputs:
        tensors = session.run(image[None])
        for name, _ in norms:
            sums[name] = sums.get(name, 0.0) + _moments(tensors[name])
    return float(np.mean([_distance(sums[name] / len(inputs), op) for name, op in norms]))


def _moments(tensor: StoredTensor) -> NDArray[np.float64]:
    """Mean of the values and of their squares, (2, channels)."""
    axes = tuple(axis for axis in range(tensor.values.ndim) if axis != tensor.channel_axis)
    values = tensor.values
    return np.stack([values.mean(axis=axes), np.square(values).mean(axis=axes)]).astype(np.float64)


def _distance(moments: NDArray[np.float64], op: BatchNorm) -> float:
    """Mean over channels of the distance between two normal distributions, in the doctor's own measure."""
    mean, square = moments
    remembered = op.variance.astype(np.float64) + op.epsilon
    variance = np.maximum(square - mean**2, 0) + op.epsilon
    shift = np.abs(mean - op.mean) / np.sqrt(remembered)
    spread = np.abs(np.log(variance / remembered))
    return float(np.minimum(shift, _CAP).mean() + _VARIANCE_WEIGHT * np.minimum(spread, _CAP).mean())


def _variants(inputs: Inputs, contract: Preprocessing) -> Iterator[_Variant]:
    """The images after undoing each of the usual mistakes."""
    scale, offset = contract.affine()
    pixels = (inputs - offset) / scale  # 0 to 255, in the order of the model's channels

    def prepared(images: NDArray[np.float64]) -> Inputs:
        return (images * scale + offset).astype(np.float32)

    yield _Variant(kind=Kind.INVERTED, mistake="inverted images", inputs=prepared(255 - pixels))
    if contract.channels == 3:
        swapped = prepared(pixels[..., ::-1])
        yield _Variant(kind=Kind.CHANNEL_ORDER, mistake="red and blue swapped", inputs=swapped)
    rgb = pixels[..., ::-1] if contract.bgr else pixels
    for other in _others(contract):
        factor, shift = other.affine()
        images = ((rgb[..., ::-1] if other.bgr else rgb) * factor + shift).astype(np.float32)
        kind = Kind.SCALE if _is_scaling(other) and _is_scaling(contract) else Kind.NORMALIZATION
        mistake = f"prepared as {contract.name!r} instead of {other.name!r}"
        yield _Variant(kind=kind, mistake=mistake, inputs=images)
    kind = Kind.SCALE if _is_scaling(contract) else Kind.NORMALIZATION
    for pixel, held in ((255.0, "0 to 1"), (1.0, "0 to 255")):
        images = prepared(inputs.astype(np.float64) * pixel)
        if not np.allclose(images, inputs):
            yield _Variant(kind=kind, mistake=f"pixels of {held} given as model inputs", inputs=images)


def _others(contract: Preprocessing) -> Iterator[Preprocessing]:
    for name in _CONTRACTS:
        try:
            other = Preprocessing.parse(name, contract.channels, contract.input_size)
        except UsageError:  # a formula for RGB, and the model takes grey
            continue
        if (other.scale, other.mean, other.std) != (contract.scale, contract.mean, contract.std):
            yield other


def _is_scaling(contract: Preprocessing) -> bool:
    """Whether a contract only chooses between 0-1 and 0-255."""
    return not any(contract.mean) and set(contract.std) == {1.0} and not contract.bgr


def _explained(variant: _Variant, evidence: Mapping[str, float]) -> Diagnosis:
    given, fit = evidence["as given"], evidence[variant.mistake]
    advice = {
        Kind.INVERTED: "invert the images (255 - pixel)",
        Kind.CHANNEL_ORDER: "give RGB images, or name the model's own contract with --preprocess",
    }.get(variant.kind, "name the model's own contract with --preprocess")
    return Diagnosis(
        kind=variant.kind,
        message=f"the images do not fit the model; likely cause: {variant.mistake} (the first batch norms' "
        f"statistics are missed by {given:.2f} as given, by {fit:.2f} without that mistake); {advice}. "
        "Images of a few classes only, or of one colour, can look like this too.",
        evidence=evidence,
    )


def _unexplained(given: float) -> str:
    return (
        f"the images do not fit the model: the first batch norms' statistics are missed by {given:.2f} "
        "(usual: 0.05 to 0.25), and no known mistake explains it; use images like those in training"
    )
