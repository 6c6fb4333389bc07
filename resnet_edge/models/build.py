"""From a row of the registry to a Keras model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError, UsageError

if TYPE_CHECKING:
    import keras

    from resnet_edge.models.spec import ModelSpec, Shortcut


def build_model(
    spec: ModelSpec,
    *,
    input_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    width: float = 1.0,
    shortcut: Shortcut | None = None,
    seed: int | None = 0,
) -> keras.Model:
    """Build a registry model: functional, NHWC, float32, every layer named explicitly.

    Args:
        spec: The row.
        input_shape: (height, width, channels) instead of the row's.
        classes: Number of classes instead of the row's.
        width: Factor on every layer's channels.
        shortcut: Another shortcut than the row's (CIFAR families only).
        seed: Seed of the random weights: the same seed gives the same weights. None leaves all kernels
            zero, for a model that is about to get its weights from a file.

    Raises:
        UsageError: An option makes no sense for this model.
        ModelRejectedError: The input is too small for the model's strides.
    """
    # Deferred: this module is imported by the command line, which must start without TensorFlow.
    from resnet_edge.models.architectures import assemble

    resized = replace(
        spec,
        input_shape=input_shape or spec.input_shape,
        classes=spec.classes if classes is None else classes,
    )
    _check(resized, width, shortcut)
    return assemble(replace(resized, shortcut=shortcut or spec.shortcut), width=width, seed=seed)


def _check(spec: ModelSpec, width: float, shortcut: Shortcut | None) -> None:
    if spec.classes < 1:
        raise UsageError(
            "a classifier has at least one class",
            where="--classes",
            found=str(spec.classes),
            allowed="1 or more",
        )
    if width <= 0:
        raise UsageError("the width is a positive factor", where="width", found=str(width), allowed="above 0")
    if shortcut is not None and spec.large_images:
        raise UsageError(
            f"{spec.name} has no choice of shortcuts",
            where="shortcut",
            found=shortcut.value,
            next_step="only the CIFAR models have one",
        )
    least = spec.total_stride
    if min(spec.input_shape[:2]) < least:
        raise ModelRejectedError(
            f"the input is too small for the strides of {spec.name}",
            where="--input-shape",
            found="x".join(map(str, spec.input_shape)),
            allowed=f"height and width of at least {least}",
            next_step="give a larger --input-shape, or take a model of the CIFAR families for small images",
        )
