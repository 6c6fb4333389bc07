"""Known faults, as other tools and accidents make them, each with what a verification has to answer.

Most are sealed again: the manifest states the changed files' own digests, so that it takes more than a
checksum to find them. In the last group a whole tool chain was wrong: file, spec and integers agree with each
other, and only what the model computes is left to judge by.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.verification.injections import (
    bgr,
    change_preprocessing,
    clip_bias,
    drop_relu,
    drop_softmax,
    flip_bits,
    fold_again,
    fold_again_everywhere,
    pad_like_pytorch,
    renumber_labels,
    shift_labels,
    transposed,
    truncate,
    unfold,
    weights,
    with_nan,
    wrong_scale_everywhere,
)
from resnet_edge.verification.specimen import (
    BOTH,
    FLOAT_ONNX,
    FLOAT_TFLITE,
    INT8_ONNX,
    INT8_TFLITE,
    INTEGERS,
    SPEC,
)
from resnet_edge.verification.tampering import edit_initializer, edit_scale, reseal, swap_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong with a bundle.

    Attributes:
        name: In a few words.
        story: How it comes about.
        inject: Puts it into a healthy bundle.
        artifacts: The files that must not pass, while all others must; empty where the bundle is refused.
        check: The check that must not pass.
        says: What the answer must name: a tensor, a file.
        layer: The layer that a comparison layer by layer must name; empty where none is needed.
        sealed: Whether the manifest has the digests of the changed files.
    """

    name: str
    story: str
    inject: Callable[[Path], None]
    artifacts: tuple[str, ...]
    check: str = ""
    says: tuple[str, ...] = ()
    layer: str = ""
    sealed: bool = True

    def into(self, bundle: Path) -> None:
        """Inject it, and seal the bundle again if that belongs to it."""
        self.inject(bundle)
        if self.sealed:
            reseal(bundle)


FAULTS = (
    Fault(
        name="wrong scale of an activation",
        story="a converter that finds its own range for a tensor",
        inject=lambda bundle: edit_scale(bundle / INT8_TFLITE, "layer2.0.conv2", 1.5),
        artifacts=(INT8_TFLITE,),
        check="files",
        says=("scale of 'layer2.0.conv2'",),
    ),
    Fault(
        name="zero point off by one",
        story="uint8 and int8 mixed up at a border",
        inject=lambda bundle: edit_initializer(
            bundle / INT8_ONNX, "layer1.0.conv2/output_zero_point", lambda zero_point: zero_point + 1
        ),
        artifacts=(INT8_ONNX,),
        check="files",
        says=("zero point of 'layer1.0.conv2'",),
    ),
    Fault(
        name="transposed weights",
        story="height and width exchanged on the way between two layouts",
        inject=weights("layer1.0.conv1", transposed, INT8_TFLITE),
        artifacts=(INT8_TFLITE,),
        check="files",
        says=("'layer1.0.conv1/weight'",),
    ),
    Fault(
        name="clipped bias",
        story="a bias kept in too few bits",
        inject=clip_bias,
        artifacts=(INT8_ONNX,),
        check="files",
        says=("'layer3.0.conv1/bias'",),
    ),
    Fault(
        name="swapped tensors",
        story="two weights of the same shape, assigned by position",
        inject=lambda bundle: swap_weights(bundle / INT8_TFLITE, "layer1.0.conv1", "layer1.0.conv2"),
        artifacts=(INT8_TFLITE,),
        check="files",
        says=("'layer1.0.conv1/weight'", "'layer1.0.conv2/weight'"),
    ),
    Fault(
        name="scales of other channels",
        story="weights and their scales sorted differently",
        inject=lambda bundle: edit_initializer(
            bundle / INT8_ONNX, "conv1/scale", lambda scales: np.roll(scales, 1)
        ),
        artifacts=(INT8_ONNX,),
        check="files",
        says=("scales of 'conv1/weight'",),
    ),
    Fault(
        name="another file under the name",
        story="a copy that went to the wrong place",
        inject=lambda bundle: shutil.copyfile(bundle / FLOAT_TFLITE, bundle / INT8_TFLITE),  # type: ignore[arg-type]
        artifacts=(INT8_TFLITE,),
        check="files",
        says=("'conv1'",),
    ),
    Fault(
        name="flipped bit",
        story="bad storage, or a hand in the file",
        inject=flip_bits,
        artifacts=(INT8_TFLITE,),
        check="files",
        says=(f"{INT8_TFLITE} was changed", "'layer2.0.conv2/weight'"),
        sealed=False,
    ),
    Fault(
        name="truncated file",
        story="a disk that was full",
        inject=truncate,
        artifacts=(INT8_ONNX,),
        check="files",
        says=(f"{INT8_ONNX} was changed",),
        sealed=False,
    ),
    Fault(
        name="truncated file, sealed",
        story="the digest taken from what had arrived",
        inject=truncate,
        artifacts=(INT8_ONNX,),
        check="files",
        says=("cannot be read", INT8_ONNX),
    ),
    Fault(
        name="edited spec",
        story="a scale put right by hand, in the spec only",
        inject=lambda bundle: edit_scale(bundle / SPEC, "layer1.0.add", 1.01),
        artifacts=BOTH,
        check="files",
        says=(f"{SPEC} was changed", "scale of 'layer1.0.add'"),
        sealed=False,
    ),
    Fault(
        name="missing file",
        story="a bundle copied in part",
        inject=lambda bundle: (bundle / INT8_TFLITE).unlink(),
        artifacts=(),
        says=("lacks", INT8_TFLITE),
        sealed=False,
    ),
    Fault(
        name="stale preprocessing",
        story="the manifest has a mean and std that the files were not made for",
        inject=change_preprocessing,
        artifacts=(FLOAT_TFLITE, FLOAT_ONNX, *BOTH),
        check="files",
        says=("preprocessing",),
        sealed=False,
    ),
    Fault(
        name="shifted labels",
        story="a background class in front of the others",
        inject=shift_labels,
        artifacts=(FLOAT_TFLITE, FLOAT_ONNX, *BOTH),
        check="files",
        says=("labels",),
        sealed=False,
    ),
    Fault(
        name="labels that count from 1",
        story="images labelled by another tool",
        inject=renumber_labels,
        artifacts=(FLOAT_TFLITE, FLOAT_ONNX, *BOTH),
        check="baseline",
        says=("guessing", "labels count"),
    ),
    Fault(
        name="NaN among the weights",
        story="a checkpoint of a run that had diverged",
        inject=weights("layer3.0.conv1", with_nan, FLOAT_TFLITE),
        artifacts=(FLOAT_TFLITE,),
        check="finite",
        says=("NaN",),
        layer="layer3.0.conv1",
    ),
    Fault(
        name="dropped ReLU",
        story="an activation lost when operators were fused",
        inject=drop_relu,
        artifacts=(FLOAT_TFLITE,),
        check="max-error",
        layer="layer1.0.conv1",
    ),
    Fault(
        name="dropped softmax",
        story="logits where the model gives probabilities",
        inject=drop_softmax,
        artifacts=(FLOAT_ONNX,),
        check="max-error",
        layer="fc/softmax",
    ),
    Fault(
        name="batch norm not folded",
        story="a bias with its batch norm, and a weight without",
        inject=unfold,
        artifacts=(FLOAT_TFLITE,),
        check="max-error",
        layer="layer2.0.conv1",
    ),
    Fault(
        name="batch norm folded twice",
        story="a pass that ran again",
        inject=fold_again,
        artifacts=(FLOAT_ONNX,),
        check="max-error",
        layer="layer2.0.conv2",
    ),
    Fault(
        name="wrong padding",
        story="a stride-2 convolution padded as PyTorch does, not as TensorFlow does",
        inject=pad_like_pytorch,
        artifacts=(INT8_ONNX,),
        check="sqnr",
        layer="layer2.0.conv1",
    ),
    Fault(
        name="BGR for RGB, everywhere",
        story="a first convolution for the other order of colours, in file, spec and integers",
        inject=weights("conv1", bgr, *BOTH, INTEGERS),
        artifacts=BOTH,
        check="sqnr",
        layer="conv1",
    ),
    Fault(
        name="transposed weights, everywhere",
        story="a wrong import, consistently written",
        inject=weights("layer3.0.conv2", transposed, *BOTH, INTEGERS),
        artifacts=BOTH,
        check="sqnr",
        layer="layer3.0.conv2",
    ),
    Fault(
        name="batch norm folded twice, everywhere",
        story="a wrong fold, consistently written",
        inject=fold_again_everywhere,
        artifacts=BOTH,
        check="sqnr",
        layer="layer3.0.conv1",
    ),
    Fault(
        name="range too narrow, everywhere",
        story="a tensor that was calibrated on other images, and clips on these",
        inject=wrong_scale_everywhere,
        artifacts=BOTH,
        check="sqnr",
        layer="layer3.0.conv2",
    ),
)
"""All of them."""
