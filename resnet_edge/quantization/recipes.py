"""Recipes: named quantization settings, as data, built in and from a user's TOML file."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from resnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resnet_edge.quantization.spec import IoType

Arithmetic: TypeAlias = Literal["float16", "int8", "int16x8", "weights"]
WeightRange: TypeAlias = Literal["max", "mse"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""What can stand in an artifact's file name."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a float graph becomes numbers of another type.

    Attributes:
        name: As on the command line, and in the artifacts' names.
        base: The built-in recipe that it is a variant of; for a built-in one itself. It says how files of
            each format are laid out.
        description: One line for help.
        arithmetic: ``float16`` constants; ``int8`` throughout; ``int16x8``: int16 activations; ``weights``:
            int8 constants and float arithmetic.
        formats: The formats that can express it.
        per_channel: One weight scale an output channel, or one a tensor.
        weight_range: ``max``: the largest weight becomes the largest integer; ``mse``: the range with the
            least squared error.
        bias_correction: Move each bias by the mean error that rounding the weights causes.
        equalize: Balance weight ranges across layers before calibration.
        equalize_activations: Give all channels of a tensor about the same range before calibration, where
            that is a matter of seconds.
    """

    name: str
    base: str
    description: str = ""
    arithmetic: Arithmetic
    formats: tuple[str, ...]
    per_channel: bool = True
    weight_range: WeightRange = "max"
    bias_correction: bool = False
    equalize: bool = False
    equalize_activations: bool = False

    @property
    def integer(self) -> bool:
        """Whether activations are integers, so that calibration is needed."""
        return self.arithmetic in ("int8", "int16x8")

    @property
    def io_types(self) -> tuple[IoType, ...]:
        """The element types that the artifacts' input and output can have."""
        return ("float32", "int8", "uint8") if self.arithmetic == "int8" else ("float32",)

    def check_format(self, name: str) -> None:
        """Accept a format that the recipe is for.

        Raises:
            UsageError: It is not among ``formats``.
        """
        if name not in self.formats:
            raise UsageError(
                f"recipe {self.name!r} cannot be written as {name}",
                allowed=", ".join(self.formats),
                next_step="pick one of these formats, or another recipe",
            )

    def check_io(self, io: str) -> None:
        """Accept an element type of the input and output that the recipe has.

        Raises:
            UsageError: It is not among ``io_types``.
        """
        if io not in self.io_types:
            raise UsageError(
                f"recipe {self.name!r} has no {io} input and output",
                where="--io",
                allowed=", ".join(self.io_types),
            )


def _type_error(field: str, value: object) -> bool:
    """Whether a field of a user's recipe has a value of another kind."""
    if field == "formats":
        return not (isinstance(value, list) and value and all(isinstance(item, str) for item in value))
    if field == "weight_range":
        return value not in get_args(WeightRange)
    return not isinstance(value, str if field == "description" else bool)


_SETTABLE = (
    "description",
    "formats",
    "per_channel",
    "weight_range",
    "bias_correction",
    "equalize",
    "equalize_activations",
)
"""What a user's recipe can change of its base."""


def _derive(name: str, table: object, known: Mapping[str, Recipe], where: str) -> Recipe:
    """One recipe of a user's file."""
    if not _NAME.fullmatch(name) or name in RECIPES or not isinstance(table, dict):
        raise UsageError(
            f"{name!r} cannot be a recipe",
            where=where,
            allowed="a table [NAME]: lower-case letters, digits, '.', '_', '-'; no built-in name",
        )
    where = f"[{name}] in {where}"
    fields = dict(table)
    base = find_recipe(str(fields.pop("base", "none")), known, where=where)
    for field, value in fields.items():
        if field not in _SETTABLE:
            raise UsageError(f"unknown field {field!r}", where=where, allowed=", ".join(("base", *_SETTABLE)))
        if _type_error(field, value):
            raise UsageError(f"{field} cannot be {value!r}", where=where)
    if "formats" in fields:
        for item in fields["formats"]:
            base.check_format(item)
        fields["formats"] = tuple(fields["formats"])
    return dataclasses.replace(base, name=name, **fields)


def find_recipe(name: str, recipes: Mapping[str, Recipe], *, where: str = "--recipe") -> Recipe:
    """The recipe of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in recipes:
        raise UsageError(f"unknown recipe {name!r}", where=where, allowed=", ".join(recipes))
    return recipes[name]


def load_recipes(path: Path | None = None) -> Mapping[str, Recipe]:
    """The built-in recipes and those of a user's TOML file, by name.

    A user's recipe names the one it starts from (``base``, built in or above it in the file) and what it
    changes.

    Raises:
        UsageError: The file cannot be read, or a recipe in it has an unknown field or value.
    """
    recipes = dict(RECIPES)
    if path is not None:
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError("the recipes cannot be read", where=str(path), found=str(error)) from error
        for name, table in tables.items():
            recipes[name] = _derive(name, table, recipes, str(path))
    return MappingProxyType(recipes)


def _built_in() -> Mapping[str, Recipe]:
    tables = tomllib.loads(files(__package__).joinpath("recipes.toml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {
            name: Recipe(**{**table, "name": name, "base": name, "formats": tuple(table["formats"])})
            for name, table in tables.items()
        }
    )


RECIPES: Mapping[str, Recipe] = _built_in()
"""The built-in recipes by name."""
