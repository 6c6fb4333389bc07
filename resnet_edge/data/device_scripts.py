"""The scripts of a bundle that show how an artifact is used: ``run_tflite.py`` and ``run_onnx.py``.

Each is what a user copies to the device with the artifact: the runtime, NumPy and Pillow, and the
preprocessing contract written out as numbers. File names and labels come from outside and enter as literals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pprint import pformat
from string import Template
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from resnet_edge.data.preprocessing import Preprocessing

_SCRIPT = Template('''\
"""Classify an image: python $script photo.jpg (needs $package, numpy and pillow)."""

import sys
from pathlib import Path

import numpy as np
$runtime
from PIL import Image, ImageOps

${labels}SCALE, OFFSET = np.float32($scale), np.float32($offset)
MODEL = str(Path(__file__).with_name($artifact))

image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("$mode")
if image.size != ($width, $height):
    w, h = image.size
    cover = max($box_width, w * $box_height // h), max($box_height, h * $box_width // w)
    image = image.resize(cover, Image.Resampling.BILINEAR)
    left, top = round((image.width - $width) / 2), round((image.height - $height) / 2)
    image = image.crop((left, top, left + $width, top + $height))
pixels = np.asarray(image).reshape(1, $height, $width, $channels)$order
model_input = $arranged
$run
for k in np.argsort(-scores, kind="stable")[:3]:
    print(f"{name} {scores[k]:8.4f}  $label")
''')


@dataclass(frozen=True, kw_only=True)
class _Runtime:
    """What differs between the two scripts; ``run`` sets ``name`` and ``scores`` from ``model_input``."""

    script: str
    package: str
    runtime: str
    run: str


_RUNTIMES = {
    "tflite": _Runtime(
        script="run_tflite.py",
        package="ai-edge-litert",
        runtime="from ai_edge_litert.interpreter import Interpreter",
        run="[(name, values)] = Interpreter(MODEL).get_signature_runner()(image=model_input).items()\n"
        "scores = values[0]",
    ),
    "onnx": _Runtime(
        script="run_onnx.py",
        package="onnxruntime",
        runtime="from onnxruntime import InferenceSession",
        run='session = InferenceSession(MODEL, providers=["CPUExecutionProvider"])\n'
        "name = session.get_outputs()[0].name\n"
        'scores = session.run([name], {"image": model_input})[0][0]',
    ),
}


def render_device_script(
    kind: Literal["tflite", "onnx"],
    artifact_name: str,
    preprocessing: Preprocessing,
    *,
    labels: tuple[str, ...] = (),
    layout: Literal["nchw", "nhwc"] = "nchw",
    fold_input: bool = False,
    batch: int | None = 1,
) -> str:
    """The text of ``run_tflite.py`` or ``run_onnx.py``.

    The script takes the path of an image. It prints the three highest of the model's outputs, each with the
    output's name (logits or probabilities) and its class.

    Args:
        kind: Which runtime.
        artifact_name: The artifact's file name; the script looks for it in its own folder.
        preprocessing: The model's contract.
        labels: The classes' names by index; without any the script prints the index.
        layout: Of an ONNX artifact's input; a TFLite artifact's is NHWC.
        fold_input: Whether the artifact takes pixels, the contract's arithmetic being inside.
        batch: The number of images that the artifact takes at once (the script repeats its one image); None
            if it takes any number.
    """
    outside = preprocessing.folded() if fold_input else preprocessing
    scale, offset = outside.affine()
    height, width = preprocessing.input_size
    box_height, box_width = preprocessing.resize
    return _SCRIPT.substitute(
        vars(_RUNTIMES[kind]),
        labels=f"LABELS = {pformat(list(labels), width=100, compact=True)}\n" if labels else "",
        label="{LABELS[k]}" if labels else "class {k}",
        artifact=repr(artifact_name),
        scale=scale.tolist(),
        offset=offset.tolist(),
        mode={1: "L", 3: "RGB", 4: "RGBA"}[preprocessing.channels],
        order="[..., ::-1]" if outside.bgr else "",
        arranged=_arranged("pixels * SCALE + OFFSET", "nhwc" if kind == "tflite" else layout, batch),
        height=height,
        width=width,
        box_height=box_height,
        box_width=box_width,
        channels=preprocessing.channels,
    )


def _arranged(expression: str, layout: Literal["nchw", "nhwc"], batch: int | None) -> str:
    """The expression for one NHWC image, brought to the artifact's layout and batch."""
    if layout == "nchw":
        expression = f"({expression}).transpose(0, 3, 1, 2)"
    if batch not in (None, 1):
        expression = f"({expression}).repeat({batch}, axis=0)"
    return expression
