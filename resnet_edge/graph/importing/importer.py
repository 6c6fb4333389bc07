"""A Keras model's one image input and one vector of classes, and the graph between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.graph import INPUT_NAME, Graph, GraphEditor
from resnet_edge.graph.importing.names import legal_name
from resnet_edge.graph.importing.tables import translator_of, unsupported
from resnet_edge.graph.importing.walk import Builder, functional_of, has_own_call
from resnet_edge.graph.operators import Input

if TYPE_CHECKING:
    from resnet_edge.graph.geometry import Shape


def import_keras(model: Any, *, input_shape: Shape | None = None) -> Graph:
    """The graph of a Keras model, weights as float32.

    Args:
        model: Functional, Sequential or subclassed; one image input (N, height, width, channels), one output
            (N, classes).
        input_shape: (height, width, channels), needed where the model leaves it open.

    Raises:
        ModelRejectedError: A layer is not supported (named, with its path), or the input or output is not
            of the kind above.
    """
    builder = Builder(translator_of, unsupported)
    image = builder.emit(Input(shape=image_shape(model, input_shape)), (), path=INPUT_NAME)
    functional = functional_of(model)
    if functional is not None:
        outputs = builder.walk(functional.outputs, {id(functional.inputs[0]): image}, path="")
    else:
        outputs = builder.operation(model, (image,), {}, path="") if has_own_call(model) else []
    if len(outputs) != 1:
        raise ModelRejectedError(
            f"the model has {len(outputs)} outputs",
            where=model.name,
            found=str(len(outputs)),
            allowed="one output (N, classes)",
            next_step="save a keras.Model(inputs, outputs) with the classifier's output only",
        )
    output = outputs[0]
    if len(output.shape) != 1 or output.name == INPUT_NAME:
        raise ModelRejectedError(
            "the model's output is not a vector of classes",
            where=model.name,
            found=f"(N, {', '.join(map(str, output.shape))})",
            allowed="(N, classes)",
            next_step="end the model in global pooling or Flatten and a Dense layer",
        )
    graph = Graph(name=legal_name(model.name), nodes=builder.nodes, output=output.name)
    return GraphEditor(graph).graph()  # without what does not lead to the output


def image_shape(model: Any, wanted: Shape | None) -> Shape:
    """The image's (height, width, channels): the model's own where it has one, completed by the user's.

    Raises:
        ModelRejectedError: The model does not take one image, contradicts ``wanted``, or leaves a size open.
    """
    _refuse_channels_first(model)
    inputs = getattr(functional_of(model), "inputs", None)
    if inputs is not None and len(inputs) != 1:
        raise ModelRejectedError(
            f"the model has {len(inputs)} inputs",
            where=model.name,
            found=", ".join(str(tensor.name) for tensor in inputs),
            allowed="one image input (N, height, width, channels)",
            next_step="save a keras.Model with the image as its only input",
        )
    declared = tuple(inputs[0].shape[1:]) if inputs is not None else _built_shape(model)
    if declared is None:
        declared = (None, None, None) if wanted is None else wanted
    if len(declared) != 3:
        raise ModelRejectedError(
            "the model's input is not an image",
            where=model.name,
            found=f"(N, {', '.join(map(str, declared))})",
            allowed="(N, height, width, channels)",
        )
    if wanted is not None and any(
        own not in (None, want) for own, want in zip(declared, wanted, strict=True)
    ):
        raise ModelRejectedError(
            "--input-shape contradicts the model",
            where=model.name,
            found=",".join(map(str, wanted)),
            allowed=",".join("any" if extent is None else str(extent) for extent in declared),
        )
    shape = tuple(int(extent) for extent in wanted or declared if extent is not None)
    if len(shape) != 3:
        raise ModelRejectedError(
            "the model leaves its input size open",
            where=model.name,
            found=f"({', '.join(map(str, declared))})",
            next_step="give it with --input-shape H,W,C",
        )
    return shape


def _refuse_channels_first(model: Any) -> None:
    """Before anything is made of the input's shape, whose last number would not be the channels."""
    for layer in model._flatten_layers():  # noqa: SLF001 - Keras' only recursive listing
        if getattr(layer, "data_format", None) == "channels_first":
            raise ModelRejectedError(
                "the model is channels_first",
                where=layer.path,
                found="data_format='channels_first'",
                allowed="channels_last (N, height, width, channels)",
                next_step="rebuild it with data_format='channels_last': the weights fit unchanged, but for a "
                "Dense layer behind Flatten",
            )


def _built_shape(model: Any) -> tuple[int | None, ...] | None:
    """The input shape that a subclassed model was built or called with."""
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    shape = next(iter(shapes.values()), None)
    return tuple(shape[1:]) if isinstance(shape, tuple | list) and len(shape) > 1 else None
