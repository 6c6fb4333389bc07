"""A .tflite artifact in LiteRT, with its default delegate (XNNPACK)."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from resnet_edge.engines.batching import run_in_batches
from resnet_edge.errors import ConversionFailedError, DependencyMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

DELEGATE_NOTICE = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
"""What LiteRT writes to standard error for every model; it offers no switch for it."""


class TFLiteEngine:
    """A .tflite file with one float32 image input and one (N, classes) output.

    Args:
        artifact: The file.
        threads: CPU threads.

    Raises:
        DependencyMissingError: ai-edge-litert is not installed.
        ConversionFailedError: LiteRT does not accept the file, or its input is not a float32 image.
    """

    def __init__(self, artifact: Path, *, threads: int = 1) -> None:
        self._interpreter = _open(artifact, threads)
        (image,) = self._interpreter.get_input_details()[:1]
        shape = [int(extent) for extent in image["shape_signature"]]
        if len(shape) != 4 or min(shape[1:]) < 1 or image["dtype"] is not np.float32:
            raise ConversionFailedError(
                "the file's input is not an image",
                where=str(artifact),
                found=f"{image['name']}: {np.dtype(image['dtype']).name} {shape}",
                allowed="float32 (N, height, width, channels)",
                next_step="give a file that this program exported",
            )
        self._image_shape = tuple(shape[1:])
        self._batch = None if shape[0] == -1 else shape[0]
        self._input = image["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._allocated = int(image["shape"][0])

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels).

        Raises:
            DataRejectedError: The images do not have the artifact's shape, or there are none.
        """
        return run_in_batches(images, image_shape=self._image_shape, batch=self._batch, run=self._run)

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(images) != self._allocated:
            self._interpreter.resize_tensor_input(self._input, images.shape)
            self._interpreter.allocate_tensors()
            self._allocated = len(images)
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        outputs: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return outputs

    def close(self) -> None:
        """Free the runtime's memory."""
        self._interpreter = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open(artifact: Path, threads: int) -> Any:
    """LiteRT's interpreter with memory for the file's own batch."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise DependencyMissingError(
            "LiteRT is not installed",
            where=str(artifact),
            found=str(error),
            next_step="pip install ai-edge-litert",
        ) from error
    try:
        with _without_delegate_notice():
            interpreter = Interpreter(model_path=str(artifact), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ConversionFailedError(
            "LiteRT does not accept the file",
            where=str(artifact),
            found=str(error).strip(),
            next_step="export the model again; if it stays so, please report it with the model",
        ) from error
    return interpreter


@contextmanager
def _without_delegate_notice() -> Iterator[None]:
    """Keep LiteRT's notice off standard error, and pass on all else that is written there meanwhile."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        try:
            standard_error = os.dup(2)
        except OSError:  # closed, as in a service: there is nothing to keep clean
            yield
            return
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            kept.seek(0)
            rest = kept.read().replace(DELEGATE_NOTICE, b"")
            with suppress(OSError):
                os.write(2, rest)
