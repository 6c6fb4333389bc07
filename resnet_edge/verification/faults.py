"""Known faults, as other tools and accidents make them, each with what a verification has to answer.

Most are sealed again: the manifest states the changed files' own digests, so that it takes more than a
checksum to find them. In the last group a whole tool chain was wrong: file, spec and integers agree with each
other, and only what the model computes is left to judge by.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.contents import fold, load_imported
from resnet_edge.manifest import MANIFEST_NAME, read_manifest
from resnet_edge.verification.specimen import NAME
from resnet_edge.verification.tampering import (
    edit_constant,
    edit_initializer,
    edit_scale,
    editing_onnx,
    editing_tflite,
    reseal,
    swap_weights,
    tflite_operator,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FLOAT_TFLITE, FLOAT_ONNX = f"{NAME}-fp32.tflite", f"{NAME}-fp32.onnx"
INT8_TFLITE, INT8_ONNX = f"{NAME}-int8.tflite", f"{NAME}-int8.onnx"
SPEC, INTEGERS = f"{NAME}-int8.spec.json", f"{NAME}-int8.integers.safetensors"

BOTH = (INT8_TFLITE, INT8_ONNX)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong with a bundle.

    Attributes:
        name: In a few words.
        story: How it comes about.
        inject: Puts it into a healthy bundle.
        artifacts: The files that must fail, and no others; empty where the verification refuses the bundle.
        check: The check that must fail.
        says: What the answer must name: a tensor, a layer, a file.
        sealed: Whether the manifest has the digests of the changed files.
        layers: Whether it takes a comparison layer by layer to name the place.
    """

    name: str
    story: str
    inject: Callable[[Path], None]
    artifacts: tuple[str, ...]
    check: str = ""
    says: tuple[str, ...]
    sealed: bool = True
    layers: bool = False

    def into(self, bundle: Path) -> None:
        """Inject it, and seal the bundle again if that belongs to it."""
        self.inject(bundle)
        if self.sealed:
            reseal(bundle)


def _weights(
    node: str, change: Callable[[NDArray[Any]], NDArray[Any]], *files: str
) -> Callable[[Path], None]:
    """A change to one convolution's weight in some of a bundle's files."""

    def inject(bundle: Path) -> None:
        for file in files:
            edit_constant(bundle / file, node, "weight", change)

    return inject


def _transposed(weight: NDArray[Any]) -> NDArray[Any]:
    """Kernels with height and width exchanged, (width, height, in, out)."""
    return weight.transpose(1, 0, 2, 3)


def _bgr(weight: NDArray[Any]) -> NDArray[Any]:
    """The first convolution's weight as it is for blue, green, red."""
    return weight[:, :, ::-1]


def _with_nan(weight: NDArray[Any]) -> NDArray[Any]:
    changed = weight.copy()
    changed[0, 0, 0, 0] = np.nan
    return changed


def _clip_bias(bundle: Path) -> None:
    def clipped(bias: NDArray[Any]) -> NDArray[Any]:
        most = int(np.abs(bias).max()) // 2
        return bias.clip(-most, most)

    edit_constant(bundle / INT8_ONNX, "layer3.0.conv1", "bias", clipped)


def _fold_factors(bundle: Path, node: str) -> NDArray[np.float64]:
    """What folding the batch norm multiplied each output channel of a convolution with, (out,)."""
    manifest = read_manifest(bundle)
    imported = load_imported(bundle, manifest)
    before, after = (
        graph.by_name[node].op.weights()["weight"].astype(np.float64)
        for graph in (imported, fold(imported, manifest))
    )
    factors: NDArray[np.float64] = np.sum(before * after, axis=(0, 1, 2)) / np.sum(before**2, axis=(0, 1, 2))
    return factors


def _unfold(bundle: Path) -> None:
    factors = _fold_factors(bundle, "layer2.0.conv1")
    edit_constant(bundle / FLOAT_TFLITE, "layer2.0.conv1", "weight", lambda weight: weight / factors)


def _fold_twice(bundle: Path) -> None:
    factors = _fold_factors(bundle, "layer2.0.conv2")
    edit_constant(bundle / FLOAT_ONNX, "layer2.0.conv2", "weight", lambda weight: weight * factors)


def _fold_twice_everywhere(bundle: Path) -> None:
    factors = _fold_factors(bundle, "layer3.0.conv1")
    relative = factors / np.abs(factors).max()
    for file in (*BOTH, INTEGERS):
        edit_constant(bundle / file, "layer3.0.conv1", "weight", lambda weight: np.rint(weight * relative))


def _drop_relu(bundle: Path) -> None:
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    with editing_tflite(bundle / FLOAT_TFLITE) as model:
        options = tflite_operator(model, "layer1.0.conv1").builtinOptions
        options.fusedActivationFunction = ActivationFunctionType.NONE


def _pad_like_pytorch(bundle: Path) -> None:
    """Pad a stride-2 convolution before the first row and column, where TensorFlow pads behind the last."""
    with editing_onnx(bundle / INT8_ONNX) as model:
        conv = next(node for node in model.graph.node if node.output[0] == "layer2.0.conv1/conv")
        pads = next(attribute for attribute in conv.attribute if attribute.name == "pads")
        pads.ints[:] = [1, 1, 0, 0]


def _wrong_scale_everywhere(bundle: Path) -> None:
    for file in (*BOTH, SPEC):
        # Consumed by an Add only: a convolution's bias would have to follow.
        edit_scale(bundle / file, "layer3.0.conv2", 0.25)


def _flip_bits(bundle: Path) -> None:
    def flipped(weight: NDArray[Any]) -> NDArray[Any]:
        changed = weight.copy()
        changed[0, 0, 0, 0] ^= 0x40
        return changed

    edit_constant(bundle / INT8_TFLITE, "layer2.0.conv2", "weight", flipped)


def _truncate(bundle: Path) -> None:
    path = bundle / INT8_ONNX
    path.write_bytes(path.read_bytes()[:-5000])


def _edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle / MANIFEST_NAME
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def _change_preprocessing(manifest: dict[str, Any]) -> None:
    manifest["preprocessing"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def _shift_labels(manifest: dict[str, Any]) -> None:
    manifest["labels"] = ["background", *manifest["labels"][:-1]]


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
        inject=_weights("layer1.0.conv1", _transposed, INT8_TFLITE),
        artifacts=(INT8_TFLITE,),
        check="files",
        says=("'layer1.0.conv1/weight'",),
    ),
    Fault(
        name="clipped bias",
        story="a bias kept in too few bits",
        inject=_clip_bias,
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
        inject=_flip_bits,
        artifacts=(INT8_TFLITE,),
        check="files",
        says=(f"{INT8_TFLITE} was changed", "'layer2.0.conv2/weight'"),
        sealed=False,
    ),
    Fault(
        name="truncated file",
        story="a disk that was full",
        inject=_truncate,
        artifacts=(INT8_ONNX,),
        check="files",
        says=(f"{INT8_ONNX} was changed",),
        sealed=False,
    ),
    Fault(
        name="truncated file, sealed",
        story="the digest taken from what had arrived",
        inject=_truncate,
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
        inject=lambda bundle: _edit_manifest(bundle, _change_preprocessing),
        artifacts=(FLOAT_TFLITE, FLOAT_ONNX, *BOTH),
        check="files",
        says=("preprocessing",),
        sealed=False,
    ),
    Fault(
        name="shifted labels",
        story="a background class in front of the others",
        inject=lambda bundle: _edit_manifest(bundle, _shift_labels),
        artifacts=(FLOAT_TFLITE, FLOAT_ONNX, *BOTH),
        check="files",
        says=("labels",),
        sealed=False,
    ),
    Fault(
        name="NaN among the weights",
        story="a checkpoint of a run that had diverged",
        inject=_weights("layer3.0.conv1", _with_nan, FLOAT_TFLITE),
        artifacts=(FLOAT_TFLITE,),
        check="finite",
        says=("NaN",),
    ),
    Fault(
        name="dropped ReLU",
        story="an activation lost when operators were fused",
        inject=_drop_relu,
        artifacts=(FLOAT_TFLITE,),
        check="max-error",
        says=("layer1.0.conv1",),
        layers=True,
    ),
    Fault(
        name="batch norm not folded",
        story="a bias with its batch norm, and a weight without",
        inject=_unfold,
        artifacts=(FLOAT_TFLITE,),
        check="max-error",
        says=("layer2.0.conv1",),
        layers=True,
    ),
    Fault(
        name="batch norm folded twice",
        story="a pass that ran again",
        inject=_fold_twice,
        artifacts=(FLOAT_ONNX,),
        check="max-error",
        says=("layer2.0.conv2",),
        layers=True,
    ),
    Fault(
        name="wrong padding",
        story="a stride-2 convolution padded as PyTorch does, not as TensorFlow does",
        inject=_pad_like_pytorch,
        artifacts=(INT8_ONNX,),
        check="sqnr",
        says=("layer2.0.conv1",),
        layers=True,
    ),
    Fault(
        name="BGR for RGB, everywhere",
        story="a first convolution for the other order of colours, in file, spec and integers",
        inject=_weights("conv1", _bgr, *BOTH, INTEGERS),
        artifacts=BOTH,
        check="sqnr",
        says=("conv1",),
        layers=True,
    ),
    Fault(
        name="transposed weights, everywhere",
        story="a wrong import, consistently written",
        inject=_weights("layer3.0.conv2", _transposed, *BOTH, INTEGERS),
        artifacts=BOTH,
        check="sqnr",
        says=("layer3.0.conv2",),
        layers=True,
    ),
    Fault(
        name="batch norm folded twice, everywhere",
        story="a wrong fold, consistently written",
        inject=_fold_twice_everywhere,
        artifacts=BOTH,
        check="sqnr",
        says=("layer3.0.conv1",),
        layers=True,
    ),
    Fault(
        name="range too narrow, everywhere",
        story="a tensor that was calibrated on other images, and clips on these",
        inject=_wrong_scale_everywhere,
        artifacts=BOTH,
        check="sqnr",
        says=("layer3.0.conv2",),
        layers=True,
    ),
)
"""All of them."""
