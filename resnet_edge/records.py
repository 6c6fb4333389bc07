"""JSON objects as frozen dataclasses, every value checked against the type of its field."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

RecordT = TypeVar("RecordT")

_NAMES = {bool: "true or false", int: "an integer", float: "a finite number", str: "a text"}


def read_record(kind: type[RecordT], values: Any, place: str = "") -> RecordT:
    """The record that ``dataclasses.asdict`` and JSON made ``values`` of.

    Fields of the types that records have: texts, numbers, other records, tuples and mappings of these, one of
    some literals, and each of them or None. Fields that the record does not have are left out.

    Args:
        kind: The dataclass.
        values: What JSON gave.
        place: Where ``values`` is in the document, as errors name it: ``artifacts[0]``.

    Raises:
        ValueError: A value is missing or of another type; names it.
    """
    given = _of_type(dict, values, place, "an object")
    types = get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = f"{place}.{field.name}" if place else field.name
        if field.name in given:
            found[field.name] = _read(types[field.name], given[field.name], name)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{name} is missing")
    return kind(**found)


def _read(kind: Any, value: Any, place: str) -> Any:
    """A value as the type of its field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (kind,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else _read(kind, value, place)
    if origin is tuple:
        items = _of_type(list, value, place, "a list")
        if arguments[-1] is not Ellipsis and len(items) != len(arguments):
            raise ValueError(f"{place} has {len(items)} entries, not {len(arguments)}")
        return tuple(_read(arguments[0], item, f"{place}[{index}]") for index, item in enumerate(items))
    if origin is Mapping:
        entries = _of_type(dict, value, place, "an object")
        return {name: _read(arguments[1], entry, f"{place}.{name}") for name, entry in entries.items()}
    if origin is Literal:
        if not any(value == each and type(value) is type(each) for each in arguments):  # true is no 1
            raise ValueError(f"{place} is {value!r}, not one of {', '.join(map(str, arguments))}")
        return value
    if dataclasses.is_dataclass(kind):
        return read_record(kind, value, place)  # type: ignore[arg-type]
    return value if kind is Any else _of_type(kind, value, place, _NAMES[kind])


def _of_type(kind: type, value: Any, place: str, name: str) -> Any:
    """The value, if JSON wrote one of that type; true and false are no numbers, and integers are numbers."""
    accepted = (int, float) if kind is float else kind
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    if fits and kind is float:  # JSON can hold numbers beyond all floats, and Python's reads NaN
        fits = -sys.float_info.max <= value <= sys.float_info.max
    if not fits:
        raise ValueError(f"{place or 'the document'} is {value!r}, not {name}")
    return value
