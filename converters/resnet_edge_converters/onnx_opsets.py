"""The ONNX operator sets that can be written, and what differs between them.

Of the operators in use only these changed between opset 11 and 26 in a way that a file shows: Softmax
normalizes one axis since 13, everything behind it before; Resize needs its region-of-interest input up to 12;
HardSwish exists since 14. Where newer versions only added types or optional inputs (Pad, Slice, Reshape,
BatchNormalization, pools, ...) the oldest form is still valid and is written throughout. Integers need 13:
the first with a scale for each channel, and with all operators that move integers.
"""

from __future__ import annotations

import onnx
from onnx import helper

from resnet_edge.errors import UsageError

OLDEST = 11
"""The first with Clip's limits and Pad's widths as inputs, the form that all runtimes in use expect."""

NEWEST = 26
"""The newest that was tried in ONNX Runtime."""

OLDEST_INTEGER = 13
"""The first with DequantizeLinear per channel."""

SOFTMAX_OF_ONE_AXIS = 13
RESIZE_WITHOUT_REGION = 13
HARD_SWISH = 14


def check_opset(opset: int, *, integers: bool = False) -> None:
    """Refuse what cannot be written.

    Args:
        opset: The operator set.
        integers: Whether the file is to hold quantized numbers.

    Raises:
        UsageError: The operator set is outside the supported range.
    """
    oldest, newest = OLDEST_INTEGER if integers else OLDEST, min(NEWEST, onnx.defs.onnx_opset_version())
    if not oldest <= opset <= newest:
        raise UsageError(
            f"ONNX opset {opset} is not supported" + " for integers" * integers,
            where="--opset",
            found=str(opset),
            allowed=f"{oldest} to {newest}",
            next_step="17, the default, is understood by every ONNX Runtime since 1.12",
        )


def ir_version(opset: int) -> int:
    """The file format's version that came with an operator set: the oldest that may hold it."""
    return helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
