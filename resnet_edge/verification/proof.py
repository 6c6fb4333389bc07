"""The proof at export: what an artifact computes in its runtime against the user's own model run by Keras."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.engines.batching import run_in_batches
from resnet_edge.errors import ConversionFailedError
from resnet_edge.graph.execution import execute, execute_all
from resnet_edge.manifest import ProofRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.engines import Engine
    from resnet_edge.graph import Graph

FLOAT_TOLERANCE = 1e-4
"""Allowed share of max(1, max|reference|): runtimes order their float32 sums differently, which on ResNets
costs 1e-6 to 1e-5; a wrong weight, padding or fold costs far more."""

HALF_TOLERANCE = 2e-2
"""The same for a reference that computes in float16 itself: 11 significant bits through some fifty layers."""


def probe_images(shape: tuple[int, int, int], *, seed: int = 0) -> NDArray[np.uint8]:
    """Two seeded images (2, height, width, channels): noise, and a smooth one with strong borders.

    Noise alone has no low frequencies, so a wrong mean or border would hide in it.
    """
    height, width, channels = shape
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, shape, np.uint8)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phase = random.uniform(0, 2 * np.pi, channels)
    waves = np.cos(2 * np.pi * (rows + 2 * columns)[..., None] + phase)
    smooth = np.rint(127.5 * (1 + waves)).astype(np.uint8)
    return np.stack([noise, smooth])


def run_keras(model: Any, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a Keras model computes, as float32, on model inputs (N, height, width, channels)."""
    declared = getattr(model, "inputs", None)
    # One at a time where the model takes any number: TensorFlow's work space grows with the batch.
    batch = (declared[0].shape[0] if declared else None) or 1

    def run(chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        with warnings.catch_warnings():
            # Models of Keras 2 files expect their one input in a list; a bare tensor means the same.
            warnings.filterwarnings("ignore", message="The structure of `inputs`")
            return np.asarray(model(chunk, training=False), np.float32)

    return run_in_batches(inputs, image_shape=inputs.shape[1:], batch=batch, run=run)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The user's own model at work on the probe images.

    Attributes:
        model: The Keras model.
        imported: Its graph before any pass.
        inputs: Model inputs (N, height, width, channels).
        pixels: What an artifact with folded normalization takes instead: the images, as float32.
        outputs: What Keras computes, (N, classes).
        half: Whether the model computes in float16 or bfloat16.
    """

    model: Any
    imported: Graph
    inputs: NDArray[np.float32]
    pixels: NDArray[np.float32]
    outputs: NDArray[np.float32]
    half: bool

    @property
    def tolerance(self) -> float:
        """The share of max(1, max|outputs|) that is let through."""
        return HALF_TOLERANCE if self.half else FLOAT_TOLERANCE

    @property
    def limit(self) -> float:
        """The largest difference that is let through."""
        return self.tolerance * max(1.0, float(np.abs(self.outputs).max()))


def run_reference(model: Any, imported: Graph, preprocessing: Preprocessing) -> Reference:
    """Run the user's model on the probe images.

    Raises:
        ConversionFailedError: It computes NaN or infinity, so nothing could be proven.
    """
    height, width, channels = imported.input_shape
    images = probe_images((height, width, channels))
    inputs = preprocessing.apply(images)
    outputs = run_keras(model, inputs)
    if not np.isfinite(outputs).all():
        raise ConversionFailedError(
            "the model itself computes NaN or infinity",
            where=imported.name,
            found=f"{np.count_nonzero(~np.isfinite(outputs))} of {outputs.size} outputs on seeded images",
            next_step="check the model's weights, and --preprocess for the range of its input",
        )
    return Reference(
        model=model,
        imported=imported,
        inputs=inputs,
        pixels=images.astype(np.float32),
        outputs=outputs,
        half=computes_in_half(model),
    )


def computes_in_half(model: Any) -> bool:
    """Whether any layer computes in float16 or bfloat16 (mixed precision)."""
    layers = model._flatten_layers()  # noqa: SLF001 - Keras' only recursive listing
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers)


def prove(
    engine: Engine, reference: Reference, folded: Graph, *, artifact: str, fold_input: bool
) -> ProofRecord:
    """Run an artifact on the probe images and compare.

    Raises:
        ConversionFailedError: It is off by more than the limit; says where it went wrong as far as known.
    """
    outputs = engine.run(reference.pixels if fold_input else reference.inputs)
    error = _max_abs_error(outputs, reference.outputs)
    if error > reference.limit:
        raise ConversionFailedError(
            f"{artifact} does not compute what the model computes",
            where=_culprit(reference, folded, fold_input=fold_input),
            found=f"max abs error {error:.3g} on {len(outputs)} seeded images",
            allowed=f"{reference.limit:.3g} ({reference.tolerance:g} of the largest output, at least of 1)",
            next_step="this is a defect of resnet-edge or of the runtime: please report it with the model",
        )
    return ProofRecord(
        reference="the user's model run by Keras",
        images=len(outputs),
        max_abs_error=error,
        max_abs_reference=float(np.abs(reference.outputs).max()),
        limit=reference.limit,
    )


def _max_abs_error(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The largest difference; infinite where it cannot be told (another shape, NaN)."""
    if ours.shape != theirs.shape:
        return float("inf")
    error = float(np.abs(ours - theirs).max())
    return float("inf") if np.isnan(error) else error


def _culprit(reference: Reference, folded: Graph, *, fold_input: bool) -> str:
    """The step, and the layer where it can be found, that took the numbers away from the model's."""
    imported = execute(reference.imported, reference.inputs)
    if _max_abs_error(imported, reference.outputs) > reference.limit:
        layer = _first_wrong_layer(reference)
        return f"import of layer {layer!r}" if layer else "import of the model"
    passes = execute(folded, reference.pixels if fold_input else reference.inputs)
    if _max_abs_error(passes, reference.outputs) > reference.limit:
        return "the passes over the graph (try --no-fold)"
    return "the file or its runtime: the graph itself computes what the model computes"


def _first_wrong_layer(reference: Reference) -> str:
    """The first layer of a functional model whose output the imported graph does not reproduce."""
    import keras  # deferred: only a failure needs it

    if not getattr(reference.model, "inputs", None):
        return ""
    ours = execute_all(reference.imported, reference.inputs)
    for node in reference.imported.nodes[1:]:
        try:
            layer = reference.model.get_layer(node.source)
        except ValueError:  # a node inside a layer or a nested model has no layer of its own
            continue
        theirs = run_keras(keras.Model(reference.model.inputs, layer.output), reference.inputs)
        limit = reference.tolerance * max(1.0, float(np.abs(theirs).max()))
        if _max_abs_error(ours[node.name], theirs) > limit:
            return str(node.source)
    return ""
