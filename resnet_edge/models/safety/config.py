"""The check of a model's configuration: every class and function it names, before Keras looks one up.

A Keras configuration is JSON in which any dictionary with a ``class_name`` makes Keras look that name up and
build the class: layers, but also initializers, regularizers, activations, dtype policies, arguments of calls.
So the whole tree is searched, whatever the keys are called, and each name must be in the closed set of
:mod:`resnet_edge.models.safety.classes` or among the user's own custom objects.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from resnet_edge.errors import ModelRejectedError, UnsafeFileError
from resnet_edge.models.safety.classes import is_known, is_known_function
from resnet_edge.models.safety.verdicts import ARRAYS, CODE, Finding, explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json: TypeAlias = Any
"""What ``json.loads`` returns."""

_VALUES = frozenset(
    {"__bytes__", "__ellipsis__", "__keras_tensor__", "__slice__", "__tuple__", "TensorShape"}
)
"""Class names that Keras uses for plain values."""

_NUMERIC_DTYPE = re.compile(r"bool|u?int(8|16|32|64)|b?float(16|32|64)")
"""Keras hands an array's dtype to NumPy, where ``S1000000000`` would allocate a gigabyte an element."""

_LEAST_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "Conv2D": ("filters", "kernel_size"),
    "Dense": ("units",),
    "DepthwiseConv2D": ("kernel_size", "depth_multiplier"),
    "SeparableConv2D": ("filters",),
}
"""Settings whose product a layer's number of weights cannot be below."""


@dataclass(frozen=True, kw_only=True)
class CheckedConfig:
    """A model's configuration after the check, which is what must be deserialized, not the file's again.

    Attributes:
        config: The configuration; training state (``compile_config``) taken out at every level.
        needs_code: Whether it takes more than Keras to build it: custom objects, or code in the file.
        keras_version: The version that wrote it, "" where the file does not say.
    """

    config: Mapping[str, Json]
    needs_code: bool
    keras_version: str


@dataclass(frozen=True, kw_only=True)
class _Reference:
    """A dictionary that names a class or function, and its place in the model."""

    entry: Mapping[str, Json]
    layer: str
    key: str

    @property
    def module(self) -> str | None:
        return self.entry.get("module")

    @property
    def class_name(self) -> str:
        name: str = self.entry["class_name"]
        return name

    @property
    def settings(self) -> Mapping[str, Json]:
        settings = self.entry.get("config")
        return settings if isinstance(settings, dict) else {}

    @property
    def place(self) -> str:
        layer = f"layer {self.layer!r}" if self.layer else "the model"
        return f"{layer} ({self.key})" if self.key else layer


def check_config(
    text: str | bytes,
    *,
    where: str,
    elements: int,
    keras_version: str = "",
    custom_classes: frozenset[str] = frozenset(),
    allow_unsafe_code: bool = False,
) -> CheckedConfig:
    """Check a configuration.

    Args:
        text: The JSON.
        where: The file (and its part) for error messages.
        elements: Numbers that the file's weights consist of.
        keras_version: The version that wrote it.
        custom_classes: Plain and registered (``Package>Name``) names of the user's classes and functions.
        allow_unsafe_code: Whether Lambda layers and functions named by the file are let through.

    Raises:
        UnsafeFileError: It names code, or layers far larger than the file.
        ModelRejectedError: It names a class outside the closed set, or is no configuration.
    """
    config = _parse(text, where)
    findings: list[Finding] = []
    needs_code = False
    for reference in _references(config, where):
        if _is_custom(reference, custom_classes):
            needs_code = True
        elif _is_harmless(reference):
            _check_size(reference, elements, where)
        else:
            finding = _finding(reference)
            if allow_unsafe_code and finding.kind in CODE:
                needs_code = True
            else:
                findings.append(finding)
    if findings:
        raise explain(findings, where)
    return CheckedConfig(config=config, needs_code=needs_code, keras_version=keras_version)


def _parse(text: str | bytes, where: str) -> dict[str, Json]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelRejectedError(
            "the model's configuration cannot be read",
            where=where,
            found=f"{type(error).__name__}: {error}",
            next_step="save the model again with model.save()",
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ModelRejectedError(
            "the model's configuration does not describe a model",
            where=where,
            found=type(config).__name__,
            allowed="an object with class_name and config",
            next_step="save the model again with model.save()",
        )
    return config


def _references(config: dict[str, Json], where: str) -> Iterator[_Reference]:
    """Every dictionary with a ``class_name``, in the file's order; iterative, as the depth is the file's.

    Takes ``compile_config`` out on the way: a model is never compiled here, and Keras would rebuild the
    optimizers and losses of nested models even when told not to compile.
    """
    stack: list[tuple[Json, str, str]] = [(config, "", "")]
    while stack:
        node, layer, key = stack.pop()
        if isinstance(node, dict):
            if "class_name" in node:
                node.pop("compile_config", None)
                name = node["config"].get("name") if isinstance(node.get("config"), dict) else None
                if isinstance(name, str) and node is not config and key != "dtype":
                    layer, key = f"{layer}/{name}".lstrip("/"), ""
                yield _Reference(entry=_well_formed(node, where), layer=layer, key=key)
            for field, value in reversed(list(node.items())):
                # The settings and the list of layers go without saying in a place such as "layer 'a/b'".
                implied = {"config": key, "layers": ""}
                stack.append((value, layer, implied.get(field, str(field))))
        elif isinstance(node, list):
            stack.extend((value, layer, key) for value in reversed(node))


def _well_formed(node: dict[str, Json], where: str) -> dict[str, Json]:
    """Names must be text: a check that cannot read a name must not let it pass."""
    for field, types in (("class_name", str), ("module", str | None), ("registered_name", str | None)):
        if not isinstance(node.get(field), types):
            raise UnsafeFileError(
                f"the configuration has a {field} that is no name",
                where=where,
                found=json.dumps(node.get(field))[:80],
                next_step="do not use this file, or save the model again",
            )
    return node


def _is_custom(reference: _Reference, custom_classes: frozenset[str]) -> bool:
    """Whether Keras will resolve the reference to one of the user's own classes or functions.

    Newer files are resolved by ``registered_name`` and functions by ``config``, older ones by ``class_name``;
    an entry can be read either way depending on where it stands, so all that apply must be the user's.
    """
    if reference.class_name == "function":
        return reference.entry.get("config") in custom_classes
    resolved = reference.entry.get("registered_name", reference.class_name)
    return resolved in custom_classes and reference.class_name in custom_classes


def _is_harmless(reference: _Reference) -> bool:
    entry, name = reference.entry, reference.class_name
    if name in _VALUES:
        return True
    if name in ARRAYS:
        return _NUMERIC_DTYPE.fullmatch(str(reference.settings.get("dtype"))) is not None
    if name == "function":
        return is_known_function(reference.module, str(entry.get("config")))
    # Another registered name would make Keras build another class than the one that was checked.
    same = entry.get("registered_name") in (None, name)
    return same and is_known(reference.module, name)


def _finding(reference: _Reference) -> Finding:
    function = reference.entry.get("config") if reference.class_name == "function" else None
    return Finding(
        module=reference.module,
        class_name=reference.class_name,
        registered_name=reference.entry.get("registered_name"),
        function=None if function is None else str(function),
        place=reference.place,
    )


def _check_size(reference: _Reference, elements: int, where: str) -> None:
    """Refuse a layer of more weights than the file can hold: Keras would allocate it before it compares."""
    least = 1
    for setting in _LEAST_WEIGHTS.get(reference.class_name, ()):
        value = reference.settings.get(setting, 1)
        sizes = value if isinstance(value, list) else [value]
        least *= math.prod(size for size in sizes if isinstance(size, int) and size > 0)
    if least > max(elements, 1):
        raise UnsafeFileError(
            "a layer declares more weights than the file holds",
            where=f"{where}, {reference.place}",
            found=f"at least {least:,} weights",
            allowed=f"the file's {elements:,}",
            next_step="the file is damaged or made to exhaust memory: get it again from its source",
        )
