"""The architectures: stem, stages of residual units, head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from resnet_edge.models.conventions import CONVENTIONS
from resnet_edge.models.layers import LayerMaker
from resnet_edge.models.spec import Head
from resnet_edge.models.units import Unit, postactivation_unit, preactivation_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnet_edge.models.spec import ModelSpec


def assemble(spec: ModelSpec, *, width: float, seed: int | None) -> keras.Model:
    """The Keras model of a row whose input shape, classes and shortcut are settled."""
    make = LayerMaker(
        conventions=CONVENTIONS[spec.family], width=width, seed=seed, branch_gain=1 / sum(spec.units)
    )
    image = keras.Input(spec.input_shape, name="image")
    x = _stem(make, image, spec)
    residual_unit = preactivation_unit if spec.preactivation else postactivation_unit
    for unit in _units(spec):
        x = residual_unit(make, x, unit, spec)
    if spec.preactivation:
        x = make.norm_relu(x, make.conventions.names.final_norm)
    x = make.classifier(x, spec.classes, "softmax" if spec.head is Head.SOFTMAX else None)
    model = keras.Model(image, x, name=spec.name)
    _name_operations(model, make.operation_names)
    return model


def _stem(make: LayerMaker, x: keras.KerasTensor, spec: ModelSpec) -> keras.KerasTensor:
    """(N, H, W, C) to (N, H / 4, W / 4, 64), or (N, H, W, 16) for small images."""
    names, filters, bias = (
        make.conventions.names,
        make.channels(spec.stem_filters),
        make.conventions.outer_bias,
    )
    if spec.deep_stem:
        half = make.channels(spec.stem_filters // 2)
        x = make.conv(x, "conv1.0", half, 3, stride=2, bias=bias)
        x = make.conv(make.norm_relu(x, "conv1.1"), "conv1.3", half, 3, bias=bias)
        x = make.conv(make.norm_relu(x, "conv1.4"), "conv1.6", filters, 3, bias=bias)
    elif spec.large_images:
        x = make.conv(x, names.stem_conv, filters, 7, stride=2, bias=bias)
    else:
        x = make.conv(x, names.stem_conv, filters, 3, bias=bias)
    if not spec.preactivation:
        x = make.norm_relu(x, names.stem_norm)
    return make.max_pool(x, "maxpool") if spec.large_images else x


def _units(spec: ModelSpec) -> Iterator[Unit]:
    """The residual units in order; every stage but the first halves the map and doubles the filters."""
    conventions, stages = CONVENTIONS[spec.family], len(spec.units)
    for stage, count in enumerate(spec.units):
        if conventions.stride_in_last_unit:
            striding = count - 1 if stage < stages - 1 else None
        else:
            striding = 0 if stage > 0 else None
        for index in range(count):
            yield Unit(
                name=conventions.names.unit_name(stage, index),
                filters=spec.stem_filters << stage,
                stride=2 if index == striding else 1,
                first=index == 0,
            )


def _name_operations(model: keras.Model, names: list[str]) -> None:
    """Name what ``keras.ops`` made: Keras numbers it by what the process built before."""
    operations = [op for op in model.operations if not isinstance(op, keras.layers.Layer)]
    for operation, name in zip(operations, names, strict=True):
        operation.name = name
