"""What a ReLU behind an addition leaves of the addends.

Where a sum is negative the ReLU makes it zero, however negative it is. So an addend's values below the
negated other addend change nothing, and a range need not reach them. In a residual network that is much of
what branches give below zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.graph.operators import Activation, Add

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph


def rectified_addends(graph: Graph) -> Mapping[str, str]:
    """The tensors that nothing takes but an addition with a ReLU fused, each with the other addend.

    ReLU6 is one as well. An addend that is broadcast meets several values of the other, and is left out.
    """
    found = {}
    for node in graph.nodes:
        if not isinstance(node.op, Add) or node.op.activation is Activation.NONE:
            continue
        first, second = node.inputs
        for name, other in ((first, second), (second, first)):
            alone = len(graph.consumers[name]) == 1 and name != other
            if alone and graph.shapes[name] == graph.shapes[other]:
                found[name] = other
    return found


def effective(addend: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """The addend, raised to what makes the sum zero where it was below, but never above zero.

    The rectified sum is the same. Zero is where it stops, because both addends may be looked at in this way:
    two negative numbers may both become zero, but not each make up for the other.
    """
    least = np.negative(other)
    np.minimum(least, 0, out=least)
    return np.asarray(np.maximum(addend, least, out=least))
