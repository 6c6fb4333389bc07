"""What to tell the user about a class that a model file must not name: why, and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError, UnsafeFileError
from resnet_edge.models.safety.classes import OPERATIONS, supported_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHOWN = 5
"""Findings named in one message."""


class Kind(Enum):
    """Why a class is refused, the gravest first."""

    LAMBDA = auto()
    FUNCTION = auto()
    OUTSIDE = auto()
    ARRAY = auto()
    DISGUISED = auto()
    KERAS2_OPERATOR = auto()
    OPERATION_IN_HDF5 = auto()
    UNSUPPORTED = auto()
    CUSTOM = auto()
    UNKNOWN = auto()


CODE = frozenset({Kind.LAMBDA, Kind.FUNCTION})
"""What ``--allow-unsafe-code`` lets through."""

_OUTSIDE: Mapping[str, str] = {
    "FlaxLayer": "calls functions that the file names",
    "IntegerLookup": "reads a vocabulary from a path or address that the file names",
    "JaxLayer": "calls functions that the file names",
    "StringLookup": "reads a vocabulary from a path or address that the file names",
    "TFSMLayer": "runs a SavedModel from a path that the file names",
    "TextVectorization": "reads a vocabulary from a path or address that the file names",
    "TorchModuleWrapper": "unpickles a PyTorch module, which runs code",
    "__typespec__": "imports a TensorFlow class that the file names",
    "CompositeTensor": "imports a TensorFlow class that the file names",
    "TypeSpec": "imports a TensorFlow class that the file names",
}
"""Classes of Keras that reach outside the file, and how."""

ARRAYS = frozenset({"__numpy__", "__tensor__"})
"""Class names that Keras uses for arrays in a configuration."""

_KERAS2_OPERATORS = frozenset(
    {
        "ClassMethod",
        "InstanceMethod",
        "InstanceProperty",
        "SlicingOpLambda",
        "TFOpLambda",
        "TensorFlowOpLayer",
    }
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A name outside the closed set.

    Attributes:
        module: The module given for it, None for none.
        class_name: The class, or ``function``.
        registered_name: The name it is registered under, None for none.
        function: The function's name where it is one.
        place: Where in the model it stands.
    """

    module: str | None
    class_name: str
    registered_name: str | None
    function: str | None
    place: str

    @property
    def name(self) -> str:
        """The full name as the file gives it."""
        plain = ".".join(filter(None, (self.module, self.function or self.class_name)))
        registered = self.registered_name
        return plain if registered in (None, self.class_name) else f"{plain} (registered as {registered})"

    @property
    def reason(self) -> str:
        """How a class of Keras reaches outside the file, as a clause; "" for others."""
        reason = _OUTSIDE.get(self.class_name)
        return f", which {reason}" if reason else ""

    @property
    def kind(self) -> Kind:
        """Why it is refused."""
        if self.class_name in ("Lambda", "__lambda__"):
            return Kind.LAMBDA
        if self.class_name == "function":
            return Kind.FUNCTION
        if self.class_name in _OUTSIDE:
            return Kind.OUTSIDE
        if self.class_name in ARRAYS:
            return Kind.ARRAY
        if self.class_name in _KERAS2_OPERATORS:
            return Kind.KERAS2_OPERATOR
        if self.module is None:
            return self._kind_without_module()
        if self.module.partition(".")[0] != "keras":
            return Kind.CUSTOM
        return Kind.UNSUPPORTED if self.registered_name in (None, self.class_name) else Kind.DISGUISED

    def _kind_without_module(self) -> Kind:
        if self.registered_name is not None or ">" in self.class_name:
            return Kind.CUSTOM
        is_operation = any(self.class_name in names for names in OPERATIONS.values())
        return Kind.OPERATION_IN_HDF5 if is_operation else Kind.UNKNOWN


_CUSTOM_WAY_OUT = "give the file that defines it with --custom-objects FILE.py"
_ALLOW_WAY_OUT = "if you trust whoever made the file, --allow-unsafe-code runs the code in it"


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    error: type[ModelRejectedError]
    what: str
    next_step: str


_VERDICTS: Mapping[Kind, _Verdict] = {
    Kind.LAMBDA: _Verdict(
        error=UnsafeFileError,
        what="the file holds Python code in a Lambda layer",
        next_step=f"write it as a layer class and {_CUSTOM_WAY_OUT}; {_ALLOW_WAY_OUT}",
    ),
    Kind.FUNCTION: _Verdict(
        error=UnsafeFileError,
        what="the file names a Python function to be called",
        next_step=f"if it is your own function, {_CUSTOM_WAY_OUT}; {_ALLOW_WAY_OUT}",
    ),
    Kind.OUTSIDE: _Verdict(
        error=UnsafeFileError,
        what="the file asks for a class that reaches outside it",
        next_step="save the model without that part: a classifier of images does not need it",
    ),
    Kind.ARRAY: _Verdict(
        error=UnsafeFileError,
        what="the file's configuration holds an array that is not made of numbers",
        next_step="do not use this file, or save the model again",
    ),
    Kind.DISGUISED: _Verdict(
        error=UnsafeFileError,
        what="the file gives a Keras class another registered name",
        next_step=f"if that name is a class of your own, {_CUSTOM_WAY_OUT}",
    ),
    Kind.KERAS2_OPERATOR: _Verdict(
        error=ModelRejectedError,
        what="the model applies TensorFlow functions to Keras 2 tensors, which Keras 3 cannot load",
        next_step="rebuild the model in Keras 3 with layers (Add, ReLU, Cropping2D, ZeroPadding2D, ...) or "
        "keras.ops, load the weights into it and save it as .keras",
    ),
    Kind.OPERATION_IN_HDF5: _Verdict(
        error=ModelRejectedError,
        what="the model uses keras.ops on tensors, which an HDF5 file cannot restore",
        next_step="save it as an archive: model.save('NAME.keras')",
    ),
    Kind.UNSUPPORTED: _Verdict(
        error=ModelRejectedError,
        what="the model has a layer that is not supported",
        next_step=f"replace it by supported layers, or write it as a layer class made of them and "
        f"{_CUSTOM_WAY_OUT}",
    ),
    Kind.CUSTOM: _Verdict(
        error=ModelRejectedError,
        what="the model has a class that is not part of Keras",
        next_step=f"{_CUSTOM_WAY_OUT}: its code is run",
    ),
    Kind.UNKNOWN: _Verdict(
        error=ModelRejectedError,
        what="the model has a layer that is not known",
        next_step=f"if it is a class of your own, {_CUSTOM_WAY_OUT}; else replace it by supported layers",
    ),
}


def explain(findings: Sequence[Finding], where: str) -> ModelRejectedError:
    """The error for the gravest kind among the findings, naming all of that kind.

    Args:
        findings: At least one.
        where: The file, and its part.
    """
    gravest = min((finding.kind for finding in findings), key=list(Kind).index)
    same = [finding for finding in findings if finding.kind is gravest]
    verdict = _VERDICTS[gravest]
    found = [f"{finding.name} in {finding.place}{finding.reason}" for finding in same[:_SHOWN]]
    if len(same) > _SHOWN:
        found.append(f"and {len(same) - _SHOWN} more")
    return verdict.error(
        verdict.what,
        where=where,
        found="\n".join(found),
        allowed=supported_layers() if gravest in (Kind.UNSUPPORTED, Kind.UNKNOWN) else "",
        next_step=verdict.next_step,
    )
