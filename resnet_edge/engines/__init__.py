"""How an artifact is executed: one engine a runtime, behind one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray


Kernels: TypeAlias = Literal["xnnpack", "reference"]
"""What computes a .tflite: XNNPACK, with LiteRT's optimized kernels for what it leaves; or the reference
kernels."""


class Engine(Protocol):
    """An artifact opened in its runtime; a context manager."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels), in the artifact's batches."""
        ...

    def close(self) -> None:
        """Free the runtime's memory."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
