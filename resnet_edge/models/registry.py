"""The models that have a name: one row each.

Parameter counts are proven by building (tests/models): each row names who published the figure.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING

from resnet_edge.errors import UsageError
from resnet_edge.models.spec import Block, Family, Head, ModelSpec, Published

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROWS = (
    ModelSpec(
        name="resnet8",
        family=Family.MLPERF_TINY,
        block=Block.BASIC,
        units=(1, 1, 1),
        parameters=78_186,
        macs=12_501_632,
        published=Published(parameters=78_666, source="MLPerf Tiny", with_statistics=True),
        input_shape=(32, 32, 3),
        classes=10,
        head=Head.SOFTMAX,
        preprocessing="raw",
        weights=("fashion-mnist",),
    ),
)

MODELS: Mapping[str, ModelSpec] = MappingProxyType({row.name: row for row in _ROWS})
"""Every registry model by name, in the order in which they are listed."""


def find_model(name: str) -> ModelSpec:
    """The row with this name.

    Raises:
        UsageError: There is none; the message has the nearest names.
    """
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.5)
    raise UsageError(
        f"there is no model named {name!r}",
        where="MODEL",
        found=name,
        allowed=f"near: {', '.join(near)}" if near else "",
        next_step="`resnet-edge models` lists all names; a model of your own is given as a file",
    )
