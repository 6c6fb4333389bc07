"""Which translator serves which Keras class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.importing.functions import FUNCTIONS
from resnet_edge.graph.importing.layers import LAYERS

if TYPE_CHECKING:
    from resnet_edge.graph.importing.walk import Translator

_HARMLESS_OVERRIDES = frozenset({"__init__", "get_config", "from_config", "build", "compute_output_shape"})
"""What a subclass of a known layer may define without changing what the layer computes."""


def translator_of(operation: Any) -> Translator | None:
    """The translator for a layer or function of ``keras.ops``; None for what is not in the closed set."""
    if not isinstance(operation, keras.layers.Layer):
        kind = type(operation)
        return FUNCTIONS.get(kind.__name__) if kind.__module__.startswith("keras.") else None
    for kind in type(operation).__mro__:
        if kind.__module__.startswith("keras."):
            return LAYERS.get(kind.__name__)
        methods = {
            name for name, value in vars(kind).items() if callable(value) or isinstance(value, property)
        }
        if methods - _HARMLESS_OVERRIDES:
            return None  # the user's code decides what it computes: look inside its call()
    return None


def supported_names() -> str:
    """The supported layers in one line, for error messages."""
    return ", ".join(sorted(LAYERS)) + "; functions of keras.ops: " + ", ".join(sorted(FUNCTIONS))


def unsupported(operation: Any, path: str) -> ModelRejectedError:
    """The error for an operation outside the closed set."""
    kind = type(operation)
    return ModelRejectedError(
        f"layer {operation.name!r} of class {kind.__name__} is not supported",
        where=f"{path} ({kind.__module__}.{kind.__qualname__})",
        found=kind.__name__,
        allowed=supported_names(),
        next_step="replace it by supported layers, or write it as a custom layer made of them",
    )
