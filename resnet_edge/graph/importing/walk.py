"""The walk over a Keras model: from its outputs back to its input, one graph node an operation.

Keras 3 records each call on a symbolic tensor. So every model that can be called on one can be imported:
functional models by their record, subclassed models and custom layers by calling their own ``call`` on fresh
symbolic tensors, nested models by walking their own record in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
from keras.src.models.functional import Functional
from keras.src.utils.naming import to_snake_case

from resnet_edge.errors import ModelRejectedError
from resnet_edge.graph.geometry import Shape, ShapeError
from resnet_edge.graph.graph import INPUT_NAME, Node
from resnet_edge.graph.importing.names import Names
from resnet_edge.graph.operators import Input, Operator, Reshape, Slice
from resnet_edge.tensorflow_import import tf

if TYPE_CHECKING:
    from numpy.typing import NDArray

KerasTensor: TypeAlias = Any
Operation: TypeAlias = Any
"""A ``keras.Operation``: a layer, a model or a function of ``keras.ops``."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A value of the graph under construction: its node's name and its shape without the batch."""

    name: str
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Call:
    """One operation at work: what a translator gets to see.

    Attributes:
        builder: Where new nodes go.
        operation: The layer or function with its settings.
        path: The operation's place in the model, layer names joined by ``/``.
        args: Positional arguments, symbolic tensors replaced by :class:`Tensor`.
        kwargs: Keyword arguments, likewise.
    """

    builder: Builder
    operation: Operation
    path: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, in order, those inside lists included."""
        return [
            leaf for leaf in keras.tree.flatten((self.args, dict(self.kwargs))) if isinstance(leaf, Tensor)
        ]

    @property
    def tensor(self) -> Tensor:
        """The one tensor that the operation works on."""
        tensors = self.tensors
        if len(tensors) != 1:
            raise self.rejected(f"takes {len(tensors)} tensors", allowed="one tensor")
        return tensors[0]

    def emit(self, op: Operator, *inputs: Tensor, suffix: str = "") -> Tensor:
        """Add a node for this operation (``suffix`` tells the parts of one layer apart)."""
        return self.builder.emit(op, inputs, path=self.path + (f"/{suffix}" if suffix else ""))

    def rejected(self, found: str, *, allowed: str = "", next_step: str = "") -> ModelRejectedError:
        """The error for settings of this operation that the graph cannot express."""
        kind = type(self.operation)
        return ModelRejectedError(
            f"{kind.__name__} {self.path!r} cannot be exported",
            where=f"{self.path} ({kind.__module__}.{kind.__qualname__})",
            found=found,
            allowed=allowed,
            next_step=next_step or "replace it in the model by supported layers and save the model again",
        )


Translator: TypeAlias = Callable[[Call], Tensor]


def _own_name(operation: Operation) -> str:
    return str(operation.name)


def _stable_name(owner: Operation) -> Callable[[Operation], str]:
    """Names for what ``owner.call`` does, the same on every call.

    A layer that belongs to the owner has a name of its own. What ``call`` makes on the fly is numbered by
    Keras through the whole session, which would end up in the exported files: only its class counts.
    """
    owned = {id(layer) for layer in owner._flatten_layers()}  # noqa: SLF001 - the only recursive listing

    def name(operation: Operation) -> str:
        return str(operation.name) if id(operation) in owned else to_snake_case(type(operation).__name__)

    return name


class Builder:
    """Collects nodes while a model is walked."""

    def __init__(
        self,
        translator_of: Callable[[Operation], Translator | None],
        unsupported: Callable[[Operation, str], ModelRejectedError],
    ) -> None:
        self._translator_of = translator_of
        self._unsupported = unsupported
        self._names = Names()
        self._scopes: list[Operation] = []
        self._nodes: dict[str, Node] = {}
        self._tensors: dict[str, Tensor] = {}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes so far, in topological order."""
        return tuple(self._nodes.values())

    def emit(self, op: Operator, inputs: Sequence[Tensor], *, path: str) -> Tensor:
        """Add a node; its shape is inferred at once so that an error names the layer it comes from."""
        try:
            shape = op.infer([tensor.shape for tensor in inputs])
        except ShapeError as error:
            raise ModelRejectedError(
                f"layer {path!r} cannot take its input",
                where=path,
                found=str(error),
                next_step="give a larger --input-shape, or check the layer before it",
            ) from error
        name = INPUT_NAME if isinstance(op, Input) else self._names.unique(path)
        sources = tuple(tensor.name for tensor in inputs)
        self._nodes[name] = Node(name=name, op=op, inputs=sources, source=path)
        self._tensors[name] = Tensor(name=name, shape=shape)
        return self._tensors[name]

    def picked_channel(self, tensor: Tensor) -> tuple[Tensor | None, int]:
        """For a map that is ``x[..., channel]``: x and the channel; (None, 0) for any other."""
        reshape = self._nodes[tensor.name]
        taken = self._nodes[reshape.inputs[0]] if isinstance(reshape.op, Reshape) else reshape
        if not isinstance(taken.op, Slice):
            return None, 0
        source = self._tensors[taken.inputs[0]]
        height, width, channel = *source.shape[:2], taken.op.begin[2]
        whole = (taken.op.begin, taken.op.end) == ((0, 0, channel), (height, width, channel + 1))
        return (source, channel) if whole and set(taken.op.strides) == {1} else (None, 0)

    def trace(
        self, function: Any, args: Any, kwargs: Any, *, path: str, name: Callable[[Operation], str]
    ) -> list[Tensor]:
        """Call ``function`` on symbolic stand-ins for the tensors in its arguments and import what it did.

        Args:
            function: A layer's or model's ``call``, or any callable made of layers and ``keras.ops``.
            args: Its arguments, with :class:`Tensor` for the tensors.
            kwargs: Likewise.
            path: Where the function is in the model.
            name: How each operation in it is called, behind ``path``.
        """
        environment: dict[int, Tensor] = {}
        symbols: list[KerasTensor] = []  # an id is only good while its object lives

        def stand_in(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            symbols.append(keras.KerasTensor((None, *leaf.shape), dtype=_compute_dtype(function)))
            environment[id(symbols[-1])] = leaf
            return symbols[-1]

        symbolic_args, symbolic_kwargs = keras.tree.map_structure(stand_in, (args, dict(kwargs)))
        try:
            outputs = function(*symbolic_args, **symbolic_kwargs)
        except ModelRejectedError:
            raise
        except Exception as error:
            raise ModelRejectedError(
                f"the code of {path!r} cannot be traced",
                where=path,
                found=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
                allowed="keras layers, keras.ops and Python operators on tensors",
                next_step="use keras.ops instead of tf.* or NumPy on tensors inside call()",
            ) from error
        return self.walk(keras.tree.flatten(outputs), environment, path=path, name=name)

    def walk(
        self,
        outputs: Sequence[KerasTensor],
        environment: dict[int, Tensor],
        *,
        path: str,
        name: Callable[[Operation], str] = _own_name,
    ) -> list[Tensor]:
        """Import what leads from ``environment`` to ``outputs``; iterative, because ResNets are deep."""
        stack: list[tuple[KerasTensor, bool]] = [(tensor, False) for tensor in reversed(outputs)]
        while stack:
            tensor, ready = stack.pop()
            if id(tensor) in environment:
                continue
            record = _record(tensor)
            if record is None:
                raise ModelRejectedError(
                    f"an input of {path or 'the model'!r} is not connected to the image",
                    where=path,
                    next_step="the model must compute everything from its one input",
                )
            if ready:
                operation = tensor._keras_history.operation  # noqa: SLF001 - Keras offers no public accessor
                place = "/".join(filter(None, (path, name(operation))))
                results = self._import(operation, record, environment, place)
                environment.update(
                    (id(symbol), result)
                    for symbol, result in zip(record.output_tensors, results, strict=True)
                )
            else:
                stack.append((tensor, True))
                stack.extend((source, False) for source in reversed(record.input_tensors))
        return [environment[id(tensor)] for tensor in outputs]

    def _import(
        self, operation: Operation, record: Any, environment: Mapping[int, Tensor], path: str
    ) -> list[Tensor]:
        def resolve(leaf: Any) -> Any:
            return environment[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

        arguments = record.arguments
        args, kwargs = keras.tree.map_structure(resolve, (tuple(arguments.args), dict(arguments.kwargs)))
        return self.operation(operation, args, kwargs, path=path)

    def operation(self, operation: Operation, args: Any, kwargs: Any, *, path: str) -> list[Tensor]:
        """Import one operation on tensors: translate it, or look inside."""
        translator = self._translator_of(operation)
        if translator is not None:
            call = Call(builder=self, operation=operation, path=path, args=args, kwargs=kwargs)
            return [translator(call)]
        functional = functional_of(operation)
        if functional is not None:
            return self._nested(functional, args, path)
        if has_own_call(operation):
            return self._inside(operation, args, kwargs, path)
        raise self._unsupported(operation, path)

    def _nested(self, functional: Any, args: Any, path: str) -> list[Tensor]:
        tensors = [leaf for leaf in keras.tree.flatten(args) if isinstance(leaf, Tensor)]
        environment = {id(symbol): tensor for symbol, tensor in zip(functional.inputs, tensors, strict=True)}
        return self.walk(functional.outputs, environment, path=path)

    def _inside(self, operation: Operation, args: Any, kwargs: Any, path: str) -> list[Tensor]:
        if any(operation is scope for scope in self._scopes):
            raise ModelRejectedError(f"{path!r} calls itself", where=path)
        if "training" in inspect.signature(operation.call).parameters:
            kwargs = {**kwargs, "training": False}
        self._scopes.append(operation)
        try:
            return self.trace(operation.call, args, kwargs, path=path, name=_stable_name(operation))
        finally:
            self._scopes.pop()


def _record(tensor: KerasTensor) -> Any:
    """The call that made a symbolic tensor, or None for one that nothing made."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    record = history.operation._inbound_nodes[history.node_index]  # noqa: SLF001 - as above
    return None if record.is_input else record


def functional_of(operation: Operation) -> Any:
    """The functional model behind a model: itself, a built Sequential's, or None for anything else."""
    if isinstance(operation, keras.Sequential):
        return operation._functional  # noqa: SLF001 - Keras offers no public accessor
    return operation if isinstance(operation, Functional) else None


def has_own_call(operation: Operation) -> bool:
    """Whether a layer or model is of the user's making, so that its ``call`` can be looked into.

    The class counts, not where ``call`` was defined: a subclass may change what Keras' own ``call`` calls.
    """
    return isinstance(operation, keras.layers.Layer) and not type(operation).__module__.startswith("keras.")


def _compute_dtype(function: Any) -> str:
    owner = getattr(function, "__self__", function)
    dtype = getattr(owner, "compute_dtype", None) or "float32"
    return str(dtype)


def constant(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A Keras variable, tensor or number as float64."""
    return np.asarray(keras.ops.convert_to_numpy(value), dtype=np.float64)


def weight(value: Any) -> NDArray[np.float32]:
    """A Keras variable or tensor as float32; read-only, and no copy where it is float32 already."""
    array: NDArray[np.generic] = np.asarray(memoryview(tf.convert_to_tensor(value)))
    return array.astype(np.float32, copy=False)
