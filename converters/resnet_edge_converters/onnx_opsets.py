"""The ONNX operator sets that can be written, and what differs between them.

Of the operators in use only these changed between opset 11 and 26 in a way that a file shows: Softmax
normalizes one axis since 13, everything behind it before; Resize needs its region-of-interest input up to 12;
HardSwish exists since 14. Where newer versions only added types or optional inputs (Pad, Slice, Reshape,
BatchNormalization, pools, ...) the oldest form is still valid and is written throughout.
"""

from __future__ import annotations

import onnx
from onnx import helper

from resnet_edge.errors import UsageError

OLDEST = 11
"""The first with Clip's limits and Pad's widths as inputs, the form that all runtimes in use expect."""

NEWEST = 26
"""The newest that was tried in ONNX Runtime."""

SOFTMAX_OF_ONE_AXIS = 13
RESIZE_WITHOUT_REGION = 13
HARD_SWISH = 14


def check_opset(opset: int) -> None:
    """Refuse what cannot be written.

    Raises:
        UsageError: The operator set is outside the supported range.
    """
    newest = min(NEWEST, onnx.defs.onnx_opset_version())
    if not OLDEST <= opset <= newest:
        raise UsageError(
            f"ONNX opset {opset} is not supported",
            where="--opset",
            found=str(opset),
            allowed=f"{OLDEST} to {newest}",
            next_step="17, the default, is understood by every ONNX Runtime since 1.12",
        )


def ir_version(opset: int) -> int:
    """The file format's version that came with an operator set: the oldest that may hold it."""
    return helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
