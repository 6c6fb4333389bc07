"""What a written file really holds, compared exactly with the spec it was written from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.errors import ConversionFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from resnet_edge.quantization.spec import Quantized


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A quantized tensor as a file has it, brought back to the spec's convention (int8, int16)."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class StoredConstant:
    """A constant as a file has it, brought back to the graph's layout; no scales for float16."""

    array: NDArray[np.generic]
    scales: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """The integers of a file by the spec's names.

    Attributes:
        tensors: By node name.
        constants: By ``<node>/weight``, ``<node>/bias``.
    """

    tensors: Mapping[str, StoredTensor]
    constants: Mapping[str, StoredConstant]


def check(content: FileContent, quantized: Quantized, *, where: str) -> None:
    """Compare a file with the spec.

    Raises:
        ConversionFailedError: A scale, a zero point or an integer differs, or is missing; names them.
    """
    differences = [*_tensor_differences(content, quantized), *_constant_differences(content, quantized)]
    if differences:
        shown = "; ".join(differences[:5])
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ConversionFailedError(
            "the file does not hold the integers of its spec",
            where=where,
            found=shown + more,
            allowed="exactly the spec's scales, zero points and integers",
            next_step="write it again; if it was not changed in between, please report it with the model",
        )


def _tensor_differences(content: FileContent, quantized: Quantized) -> list[str]:
    found = []
    for name, wanted in quantized.spec.tensors.items():
        stored = content.tensors.get(name)
        if stored is None:
            found.append(f"tensor {name!r} is missing")
        elif np.float32(stored.scale) != np.float32(wanted.scale):
            found.append(f"scale of {name!r} is {stored.scale!r}, not {wanted.scale!r}")
        elif stored.zero_point != wanted.zero_point:
            found.append(f"zero point of {name!r} is {stored.zero_point}, not {wanted.zero_point}")
    return found


def _constant_differences(content: FileContent, quantized: Quantized) -> list[str]:
    found = []
    for name, wanted in quantized.spec.constants.items():
        stored = content.constants.get(name)
        if stored is None:
            found.append(f"constant {name!r} is missing")
            continue
        integers = quantized.constants[name]
        if stored.array.dtype != integers.dtype or not np.array_equal(stored.array, integers):
            found.append(f"the values of {name!r} differ")
        if not np.array_equal(np.array(stored.scales, np.float32), np.array(wanted.scales, np.float32)):
            found.append(f"the scales of {name!r} differ")
    return found
