"""Configurations of Keras 2, kept in ``.h5`` files to this day, in the form that Keras 3 takes.

Keras 3 reads most of them. What it stumbles over was found by saving every supported layer with tf_keras and
loading it: settings that were dropped, precision policies, how calls of nested models are counted, and how
the file's outermost model is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_edge.errors import ModelRejectedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODELS = ("Functional", "Model", "Sequential")
_CONVOLUTION = frozenset({"groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"})
_RANDOM = frozenset({"rng_type"})

_WITHOUT_MEANING: Mapping[str, frozenset[str]] = {
    "DepthwiseConv2D": _CONVOLUTION,
    "SeparableConv2D": _CONVOLUTION,
    "RandomBrightness": _RANDOM,
    "RandomContrast": _RANDOM,
    "RandomCrop": _RANDOM,
    "RandomFlip": _RANDOM,
    "RandomRotation": _RANDOM,
    "RandomTranslation": _RANDOM,
    "RandomZoom": _RANDOM,
    "SpatialDropout2D": frozenset({"noise_shape", "trainable"}),
}
"""Settings by class that Keras 2 writes and Keras 3 refuses; none changes what the layer computes."""


def modernized(config: Mapping[str, Any], *, keras_version: str) -> dict[str, Any]:
    """The configuration of an HDF5 file as ``keras.saving.deserialize_keras_object`` takes it.

    Args:
        config: The checked configuration; not changed.
        keras_version: The version that wrote it.

    Raises:
        ModelRejectedError: The model uses a function that means something else in Keras 3.
    """
    settings = config["config"] if keras_version.startswith("3") else _modern(config["config"])
    name = config["class_name"]
    if name in _MODELS:
        public = "Sequential" if name == "Sequential" else "Model"
        return {"module": "keras", "class_name": public, "config": settings, "registered_name": None}
    plain = name.rpartition(">")[2]
    return {"module": None, "class_name": plain, "config": settings, "registered_name": name}


def _modern(node: Any) -> Any:
    if isinstance(node, list):
        return [_modern(item) for item in node]
    if not isinstance(node, dict):
        return node
    kind = str(node.get("class_name"))
    if kind == "__tuple__":
        return tuple(_modern(node["items"]))
    if kind == "TensorShape":
        return node["items"]
    if kind == "Policy":
        return node["config"]["name"]
    node = {key: _modern(value) for key, value in node.items()}
    if kind in _WITHOUT_MEANING:
        dropped = _WITHOUT_MEANING[kind]
        node["config"] = {key: value for key, value in node["config"].items() if key not in dropped}
    if node.get("activation") == "hard_sigmoid":
        raise _another_hard_sigmoid(node)
    if "output_layers" in node:
        _modernize_calls(node)
    return node


def _another_hard_sigmoid(settings: Mapping[str, Any]) -> ModelRejectedError:
    return ModelRejectedError(
        "hard_sigmoid is another function in Keras 3 than in the Keras 2 that wrote the model",
        where=f"layer {settings.get('name')!r}",
        found="clip(0.2 x + 0.5, 0, 1)",
        allowed="relu6(x + 3) / 6, which Keras 3 would compute",
        next_step="write keras.ops.relu6(1.2 * x + 3) / 6 in its place and save the model in Keras 3",
    )


def _modernize_calls(settings: dict[str, Any]) -> None:
    """Count the calls of nested models from 0, as Keras 3 does; in Keras 2 call 0 was the model's making.

    A call is referred to by ``[layer, call, tensor, arguments]``. In ``output_layers`` Keras 3 itself still
    counts a nested functional model from 1. There, and in ``input_layers``, Keras 2 writes a list of one, by
    which Keras 3 means a model that takes and returns lists.
    """
    kinds = {layer["name"]: layer["class_name"] for layer in settings["layers"]}
    for layer in settings["layers"]:
        for call in (call for node in layer["inbound_nodes"] for call in node):
            call[1] -= kinds[call[0]] in _MODELS
    outputs = settings["output_layers"]
    for output in outputs if isinstance(outputs[0], list) else [outputs]:
        output[1] -= kinds[output[0]] == "Sequential"
    for ends in ("input_layers", "output_layers"):
        if len(settings[ends]) == 1:
            (settings[ends],) = settings[ends]
