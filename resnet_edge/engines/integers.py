"""Real numbers in and out of artifacts whose input and output are integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, kw_only=True)
class IntegerForm:
    """How a tensor's integers stand for real numbers: ``scale * (q - zero_point)``.

    Attributes:
        dtype: Of the integers.
        scale: Above zero.
        zero_point: The integer that stands for 0.0.
    """

    dtype: DTypeLike
    scale: float
    zero_point: int

    def quantized(self, values: NDArray[np.float32]) -> NDArray[np.integer]:
        """The nearest integers, ties to even (as XNNPACK rounds); what is out of range becomes its end."""
        limits = np.iinfo(self.dtype)
        steps = np.rint(values / np.float32(self.scale)) + self.zero_point
        integers: NDArray[np.integer] = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return integers

    def real(self, integers: NDArray[np.integer]) -> NDArray[np.float32]:
        """The real numbers that the integers stand for."""
        return (integers.astype(np.int32) - self.zero_point).astype(np.float32) * np.float32(self.scale)
