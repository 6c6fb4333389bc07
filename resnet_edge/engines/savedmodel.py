"""SavedModels in TensorFlow, on the CPU."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from resnet_edge.engines.integers import IntegerForm
from resnet_edge.engines.signature import Signature
from resnet_edge.errors import ModelRejectedError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

METADATA_FILE = "assets.extra/resnet_edge.json"
"""Where the metadata is kept: the format sets ``assets.extra`` aside for files that no graph reads."""

SIGNATURE = "serving_default"
"""The signature that serving programs call unless they are told otherwise."""


class SavedModelEngine:
    """A SavedModel whose default signature takes one NHWC image and gives one output.

    Where these are integers, real numbers are quantized and dequantized with the scales that the metadata
    holds.

    Args:
        artifact: The SavedModel's folder.
        threads: Threads within an operator. TensorFlow has one pool a process, set up at its first operator:
            later wishes have no effect.

    Raises:
        DependencyMissingError: TensorFlow is not installed.
        ModelRejectedError: TensorFlow does not accept the folder, its signature is another, or it takes
            integers without saying what they stand for.
    """

    def __init__(self, artifact: Path, *, threads: int = 1) -> None:
        from resnet_edge.tensorflow_import import tf  # deferred: takes seconds

        with suppress(RuntimeError):  # the pool is set up already
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        try:
            self._model: Any = tf.saved_model.load(str(artifact))
        except Exception as error:  # file, protobuf, and graph errors share no other base class
            raise ModelRejectedError(
                "TensorFlow does not accept the SavedModel",
                where=str(artifact),
                found=str(error).strip(),
                next_step="give the folder that holds saved_model.pb, or export the model again",
            ) from error
        self._signature = _default_signature(self._model, artifact)
        ((self._input, image),) = self._signature.structured_input_signature[1].items()
        ((self._output, output),) = self._signature.structured_outputs.items()
        batch, *shape = image.shape.as_list()
        self._ends = Signature(
            image_shape=tuple(shape),
            batch=batch,
            input_form=_integer_form(artifact, "input", image.dtype),
            output_form=_integer_form(artifact, "output", output.dtype),
        )
        self._constant = tf.constant

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels), in the model's own batches.

        Raises:
            DataRejectedError: The images do not have the model's shape.
        """
        return self._ends.run(images, self._run_batch)

    def _run_batch(self, batch: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self._signature(**{self._input: self._constant(batch)})[self._output])

    def close(self) -> None:
        """Free the variables' memory."""
        self._model = self._signature = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _default_signature(model: Any, artifact: Path) -> Any:
    """The default signature, which must take one rank-4 tensor and give one tensor."""
    signature = model.signatures.get(SIGNATURE)
    inputs = list(signature.structured_input_signature[1].values()) if signature else []
    if len(inputs) == 1 and inputs[0].shape.rank == 4 and len(signature.structured_outputs) == 1:
        return signature
    raise ModelRejectedError(
        f"the SavedModel has no {SIGNATURE!r} signature from one image to one output",
        where=str(artifact),
        found=", ".join(f"{name}{[str(tensor) for tensor in inputs]}" for name in model.signatures) or "none",
        next_step="export the model with `resnet-edge export --format savedmodel`",
    )


def _integer_form(artifact: Path, end: str, dtype: Any) -> IntegerForm | None:
    """How the integers at one end of the signature are to be read; None where there are none."""
    if not dtype.is_integer:
        return None
    try:
        form = json.loads((artifact / METADATA_FILE).read_text("utf-8"))[end]
        return IntegerForm(dtype=dtype.name, scale=float(form["scale"]), zero_point=int(form["zero_point"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelRejectedError(
            f"the SavedModel does not say what the integers of its {end} stand for",
            where=str(artifact / METADATA_FILE),
            found=f"{type(error).__name__}: {error}",
            allowed=f'"{end}" with "scale" and "zero_point"',
            next_step="export the model again, or with --io float32",
        ) from error
