"""The architectures: stem, stages of residual units, head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from resnet_edge.models.layers import CONVENTIONS, LayerMaker
from resnet_edge.models.postactivation import features as postactivation_features
from resnet_edge.models.spec import Head

if TYPE_CHECKING:
    from resnet_edge.models.spec import ModelSpec


def assemble(spec: ModelSpec, *, width: float, seed: int | None) -> keras.Model:
    """The Keras model of a row whose input shape, classes and shortcut are settled."""
    make = LayerMaker(
        conventions=CONVENTIONS[spec.family], width=width, seed=seed, branch_gain=1 / sum(spec.units)
    )
    image = keras.Input(spec.input_shape, name="image")
    x = postactivation_features(make, image, spec)
    activation = "softmax" if spec.head is Head.SOFTMAX else None
    x = make.classifier(x, "avgpool", "fc", spec.classes, activation)
    return keras.Model(image, x, name=spec.name)
