"""What the known faults do to the specimen's files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.contents import fold, load_imported
from resnet_edge.manifest import MANIFEST_NAME, read_manifest
from resnet_edge.quantizing import HELD_BACK_NAME
from resnet_edge.verification.specimen import (
    BOTH,
    FLOAT_ONNX,
    FLOAT_TFLITE,
    INT8_ONNX,
    INT8_TFLITE,
    INTEGERS,
    SPEC,
)
from resnet_edge.verification.tampering import (
    edit_constant,
    edit_scale,
    editing_onnx,
    editing_tflite,
    tflite_operator,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def weights(node: str, change: Callable[[NDArray[Any]], NDArray[Any]], *files: str) -> Callable[[Path], None]:
    """A change to one convolution's weight in some of a bundle's files."""

    def inject(bundle: Path) -> None:
        for file in files:
            edit_constant(bundle / file, node, "weight", change)

    return inject


def transposed(weight: NDArray[Any]) -> NDArray[Any]:
    """Kernels with height and width exchanged, (width, height, in, out)."""
    return weight.transpose(1, 0, 2, 3)


def bgr(weight: NDArray[Any]) -> NDArray[Any]:
    """The first convolution's weight as it is for blue, green, red."""
    return weight[:, :, ::-1]


def with_nan(weight: NDArray[Any]) -> NDArray[Any]:
    """A weight with one NaN."""
    changed = weight.copy()
    changed[0, 0, 0, 0] = np.nan
    return changed


def clip_bias(bundle: Path) -> None:
    """Clip a bias to half of its largest magnitude."""

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


def unfold(bundle: Path) -> None:
    """Take the batch norm out of a weight, and leave it in the bias."""
    factors = _fold_factors(bundle, "layer2.0.conv1")
    edit_constant(bundle / FLOAT_TFLITE, "layer2.0.conv1", "weight", lambda weight: weight / factors)


def fold_again(bundle: Path) -> None:
    """Multiply a weight with its batch norm once more."""
    factors = _fold_factors(bundle, "layer2.0.conv2")
    edit_constant(bundle / FLOAT_ONNX, "layer2.0.conv2", "weight", lambda weight: weight * factors)


def fold_again_everywhere(bundle: Path) -> None:
    """The same for integers, in file and spec, as far as they have room for it."""
    factors = _fold_factors(bundle, "layer3.0.conv1")
    relative = factors / np.abs(factors).max()
    for file in (*BOTH, INTEGERS):
        edit_constant(bundle / file, "layer3.0.conv1", "weight", lambda weight: np.rint(weight * relative))


def drop_relu(bundle: Path) -> None:
    """Take the fused activation from an operator."""
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    with editing_tflite(bundle / FLOAT_TFLITE) as model:
        options = tflite_operator(model, "layer1.0.conv1").builtinOptions
        options.fusedActivationFunction = ActivationFunctionType.NONE


def drop_softmax(bundle: Path) -> None:
    """Let the file give what goes into its softmax."""
    with editing_onnx(bundle / FLOAT_ONNX) as model:
        softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
        softmax.op_type = "Identity"
        softmax.ClearField("attribute")


def pad_like_pytorch(bundle: Path) -> None:
    """Pad a stride-2 convolution before the first row and column, where TensorFlow pads behind the last."""
    with editing_onnx(bundle / INT8_ONNX) as model:
        conv = next(node for node in model.graph.node if node.output[0] == "layer2.0.conv1/conv")
        pads = next(attribute for attribute in conv.attribute if attribute.name == "pads")
        pads.ints[:] = [1, 1, 0, 0]


def wrong_scale_everywhere(bundle: Path) -> None:
    """Let a tensor clip at a quarter of its range, in files and spec."""
    for file in (*BOTH, SPEC):
        # Consumed by an Add only: a convolution's bias would have to follow.
        edit_scale(bundle / file, "layer3.0.conv2", 0.25)


def flip_bits(bundle: Path) -> None:
    """Flip one bit of one weight."""

    def flipped(weight: NDArray[Any]) -> NDArray[Any]:
        changed = weight.copy()
        changed[0, 0, 0, 0] ^= 0x40
        return changed

    edit_constant(bundle / INT8_TFLITE, "layer2.0.conv2", "weight", flipped)


def truncate(bundle: Path) -> None:
    """Cut a file's end off."""
    path = bundle / INT8_ONNX
    path.write_bytes(path.read_bytes()[:-5000])


def _edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest's plain values in place."""
    path = bundle / MANIFEST_NAME
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def change_preprocessing(bundle: Path) -> None:
    """Let the manifest have another mean and std than when the files were written."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["preprocessing"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

    _edit_manifest(bundle, change)


def shift_labels(bundle: Path) -> None:
    """Put a class in front of the manifest's labels."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["labels"] = ["background", *manifest["labels"][:-1]]

    _edit_manifest(bundle, change)


def renumber_labels(bundle: Path) -> None:
    """Let the labels of the images that the bundle keeps count from 1, the last class becoming 0."""
    path = bundle / HELD_BACK_NAME
    with np.load(path) as kept:
        arrays = dict(kept)
    arrays["labels"] = (arrays["labels"] + 1) % len(read_manifest(bundle).labels)
    np.savez(path, allow_pickle=False, **arrays)
