"""Which registry model a set of tensors belongs to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from resnet_edge.models.conventions import CONVENTIONS
from resnet_edge.models.registry import MODELS
from resnet_edge.models.spec import Block

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnet_edge.models.spec import ModelSpec
    from resnet_edge.models.weights.naming import Tensor

_STEMS = {f"{conventions.names.stem_conv}/kernel" for conventions in CONVENTIONS.values()} | {
    "conv1.0/kernel"
}


def identify(tensors: Mapping[str, Tensor]) -> str | None:
    """The registry model that has as many parameters between its stem and its head, or None.

    The stem's kernel and the head are left out because they change with the task; what is between them is
    different in every row of the registry (at width 1 and with the default shortcut).
    """
    return _NAMES_BY_BODY.get(_body_of_tensors(tensors))


def _body_of_tensors(tensors: Mapping[str, Tensor]) -> int:
    learned = {name: tensor.shape for name, tensor in tensors.items() if "/moving_" not in name}
    body = sum(math.prod(shape) for shape in learned.values())
    stem = sum(math.prod(shape) for name, shape in learned.items() if name in _STEMS)
    head = sum((shape[0] + 1) * shape[1] for shape in learned.values() if len(shape) == 2)
    return body - stem - head


def _body_of_spec(spec: ModelSpec) -> int:
    features = (spec.stem_filters << (len(spec.units) - 1)) * (4 if spec.block is Block.BOTTLENECK else 1)
    if spec.deep_stem:
        stem = 3 * 3 * spec.stem_filters // 2
    else:
        stem = (7 * 7 if spec.large_images else 3 * 3) * spec.stem_filters
    return spec.parameters - stem * spec.input_shape[2] - (features + 1) * spec.classes


_NAMES_BY_BODY = {_body_of_spec(spec): name for name, spec in MODELS.items()}
