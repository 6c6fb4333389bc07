"""Tensors that do not fit the model: what is wrong, most likely why, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_edge.errors import ModelRejectedError
from resnet_edge.models.conventions import CONVENTIONS
from resnet_edge.models.weights.identify import identify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resnet_edge.models.conventions import Naming
    from resnet_edge.models.spec import ModelSpec
    from resnet_edge.models.weights.container import Shape
    from resnet_edge.models.weights.naming import Tensor

_LISTED = 5
"""How many names of each kind a message has."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A file's tensors held against a model's variables; true if they fit.

    Attributes:
        wanted: The variables' shapes by name.
        tensors: The file's tensors under the same names.
    """

    wanted: Mapping[str, Shape]
    tensors: Mapping[str, Tensor]

    def __bool__(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def missing(self) -> list[str]:
        """Variables that the file has no tensor for."""
        return [name for name in self.wanted if name not in self.tensors]

    @property
    def unexpected(self) -> list[str]:
        """Tensors, by their names in the file, that the model has no variable for."""
        return [tensor.source for name, tensor in self.tensors.items() if name not in self.wanted]

    @property
    def misshapen(self) -> list[str]:
        """Variables whose tensor has another shape."""
        return [
            name
            for name, shape in self.wanted.items()
            if name in self.tensors and self.tensors[name].shape != shape
        ]


def mismatch(fit: Fit, spec: ModelSpec, naming: Naming, path: Path) -> ModelRejectedError:
    """The error for tensors that do not fit."""
    actual = identify(fit.tensors)
    if actual is not None and actual != spec.name:
        return ModelRejectedError(
            f"these are the weights of {actual}, not of {spec.name}",
            where=str(path),
            found=_account(fit),
            next_step=f"use the model name {actual}",
        )
    return _of_another_task(fit, spec, path) or ModelRejectedError(
        f"the weights do not fit {spec.name}",
        where=str(path),
        found=f"tensors named as in {naming}: {_account(fit)}",
        next_step=_advice(fit),
    )


def _of_another_task(fit: Fit, spec: ModelSpec, path: Path) -> ModelRejectedError | None:
    """The error for weights of this model with other classes or another input, if that is all."""
    if fit.missing or fit.unexpected:
        return None
    differing = {name: (fit.tensors[name].shape, fit.wanted[name]) for name in fit.misshapen}
    names = CONVENTIONS[spec.family].names
    head, stem = f"{names.classifier}/kernel", f"{names.stem_conv}/kernel"
    if set(differing) == {head, f"{names.classifier}/bias"}:
        theirs, ours = (shape[-1] for shape in differing[head])
        return ModelRejectedError(
            "the weights have another number of classes than the model",
            where=str(path),
            found=f"{theirs} classes in the file, {ours} in the model",
            next_step=f"--classes {theirs}",
        )
    if set(differing) == {stem} and _differ_in_channels_only(*differing[stem]):
        theirs, ours = (shape[2] for shape in differing[stem])
        return ModelRejectedError(
            "the weights take another number of channels than the model",
            where=str(path),
            found=f"{theirs} channel(s) in the file, {ours} in the model",
            next_step=f"give --input-shape with {theirs} channel(s); the default of {spec.name} is "
            + ",".join(map(str, spec.input_shape)),
        )
    return None


def _differ_in_channels_only(theirs: Shape, ours: Shape) -> bool:
    """Whether two (height, width, in, out) shapes are alike but for what goes in."""
    return len(theirs) == len(ours) and theirs[:2] + theirs[3:] == ours[:2] + ours[3:]


def _advice(fit: Fit) -> str:
    if any(".shortcut." in name for name in fit.unexpected):
        return "these weights have projections in their shortcuts: --shortcut B"
    if any(".shortcut." in name for name in fit.missing):
        return "these weights have no projections in their shortcuts: --shortcut A"
    return "`resnet-edge models` lists the names; a model of another width takes --width"


def _account(fit: Fit) -> str:
    """Every kind of difference with its count and the first few names."""
    shapes = [
        f"{fit.tensors[name].source} {fit.tensors[name].shape} for {fit.wanted[name]}"
        for name in fit.misshapen
    ]
    kinds = (("missing", fit.missing), ("unexpected", fit.unexpected), ("of another shape", shapes))
    return "; ".join(_listing(kind, names) for kind, names in kinds if names)


def _listing(kind: str, names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}"
