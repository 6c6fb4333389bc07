"""An artifact opened by an agent, wherever it is, as an engine like the local ones."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from resnet_edge.engines.batching import OPEN_BATCH
from resnet_edge.engines.onnx import onnx_signature
from resnet_edge.engines.tflite import tflite_signature
from resnet_edge.errors import DependencyMissingError
from resnet_edge.runners.agent_process import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray

    from resnet_edge.engines.signature import Signature
    from resnet_edge.runners import Load
    from resnet_edge.runners.agent_process import AgentProcess
    from resnet_edge.runners.sites import Site

_T = TypeVar("_T")

PORTABLE = ("tflite", "onnx")
"""Formats that run elsewhere. A SavedModel does not: boards have no TensorFlow."""

TIMEOUT = 600.0
"""Seconds that any one request may take: emulated, a ResNet-50 needs up to half a minute an image."""

BLOCK_BYTES = 4 * 2**20
BLOCK_IMAGES = 256
"""What is sent at a time at most, and so what is repeated at most when a connection is lost; one batch at
least."""


class AgentEngine:
    """An artifact that an agent has opened; an engine like the local ones.

    A block of images during which the connection is lost is sent again.

    Args:
        site: Where.
        load: What.
        timeout: Seconds for any one request.

    Attributes:
        details: What the agent says of the artifact; see :attr:`resnet_edge.runners.agent.Model.details`.

    Raises:
        DependencyMissingError: The runtime is not installed there.
        ModelRejectedError: The runtime does not accept the artifact, or it takes no single image.
        RunnerUnreachableError: The site does not answer.
    """

    def __init__(self, site: Site, load: Load, *, timeout: float = TIMEOUT) -> None:
        if load.format not in PORTABLE:
            raise _not_portable(load)
        self._site, self._load, self._timeout = site, load, timeout
        self._process: AgentProcess | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="resnet-edge-")
        token = secrets.token_hex(8)
        self._inputs = Path(self._folder.name, f"{token}-inputs.npy")
        self._outputs = Path(self._folder.name, f"{token}-outputs.npy")
        self.details: dict[str, Any] = {}
        try:
            self._persist(self._opened)
            self._signature = _signature(load, self.details)
        except BaseException:
            self.close()
            raise

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels), in the artifact's batches.

        Raises:
            DataRejectedError: The images do not have the artifact's shape, or there are none.
            RunnerUnreachableError: The site does not answer, also when asked again.
        """
        size = max(1, images[:1].nbytes)
        at_once = max(1, min(BLOCK_IMAGES, BLOCK_BYTES // size))
        return self._signature.run(images, self._block, at_once=at_once)

    def _block(self, raw: NDArray[Any]) -> NDArray[Any]:
        np.save(self._inputs, raw, allow_pickle=False)
        return self._persist(lambda: self._computed(self._signature.batch or OPEN_BATCH))

    def _computed(self, batch: int) -> NDArray[Any]:
        """The outputs for what is in the file of inputs."""
        process = self._process or self._opened()
        self._site.push(self._inputs)
        answer = process.request(
            "run",
            timeout=self._timeout,
            inputs=self._site.path(self._inputs),
            outputs=self._site.path(self._outputs),
            batch=batch,
        )
        self._site.pull(self._outputs)
        if hashlib.sha256(self._outputs.read_bytes()).hexdigest() != answer["sha256"]:
            raise ConnectionLostError("the outputs have not come back whole", where=self._site.where)
        outputs: NDArray[Any] = np.load(self._outputs, allow_pickle=False)
        return outputs

    def _opened(self) -> AgentProcess:
        """A new agent with the artifact open."""
        artifact = self._site.artifact(self._load.artifact)
        process = self._process = self._site.start()
        self.details = process.request(
            "open",
            timeout=self._timeout,
            artifact=artifact,
            format=self._load.format,
            threads=self._load.threads,
            kernels=self._load.kernels,
        )
        return process

    def _persist(self, action: Callable[[], _T]) -> _T:
        """Do something, again and from a new agent on where the connection is lost."""
        for pause in self._site.pauses:
            try:
                return action()
            except ConnectionLostError:
                self._end_agent()
                time.sleep(pause)
        return action()

    def _end_agent(self) -> None:
        process, self._process = self._process, None
        if process:
            process.close()

    def close(self) -> None:
        """End the agent, and remove what was copied for a while."""
        self._end_agent()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _signature(load: Load, details: dict[str, Any]) -> Signature:
    inputs, outputs = details["inputs"], details["outputs"]
    if load.format == "tflite":
        return tflite_signature(inputs, outputs, load.artifact)
    return onnx_signature(inputs, outputs, details["metadata"], load.artifact)


def _not_portable(load: Load) -> DependencyMissingError:
    return DependencyMissingError(
        "artifacts of this format run on this machine only",
        where=str(load.artifact),
        found=load.format,
        allowed=", ".join(PORTABLE),
        next_step="verify it with --runner local",
    )
