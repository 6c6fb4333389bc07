"""The user's own classes for a model file: ``--custom-objects FILE.py``.

The file is the user's code and is run, by design. What it offers is what a model file may then name.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import traceback
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resnet_edge.errors import ModelRejectedError
from resnet_edge.models.safety.classes import is_known

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CustomObjects:
    """Classes and functions of the user's.

    Attributes:
        objects: By the names that Keras looks up: plain, or as registered (``Package>Name``).
        names: All names that a model file may use for them.
        digest: SHA-256 of the file, None where there is none.
    """

    objects: Mapping[str, Any] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    digest: str | None = None


def load_custom_objects(path: Path) -> CustomObjects:
    """Run a Python file and collect what it offers to Keras.

    That is: every layer and model class in its namespace, every other class and function that it defines, and
    whatever is registered with Keras while it runs.

    Raises:
        ModelRejectedError: The file cannot be read, or fails; names the line.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ModelRejectedError(
            "the file of custom objects cannot be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="give --custom-objects the Python file that defines the model's classes",
        ) from error
    return _run(source, path)


@functools.lru_cache(maxsize=8)
def _run(source: bytes, path: Path) -> CustomObjects:
    """Run the code once a process: a second run would make other classes of the same names."""
    import keras

    digest = hashlib.sha256(source).hexdigest()
    module = types.ModuleType(f"_resnet_edge_custom_objects_{digest[:16]}")
    module.__file__ = str(path)
    registry = keras.saving.get_custom_objects()
    before = dict(registry)
    sys.modules[module.__name__] = module  # dataclasses and type hints look their module up
    try:
        # Exactly the bytes behind the digest; an import would read them again and leave a cache beside them.
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - what the option is for
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _failed(path, error) from error
    registered = {name: value for name, value in registry.items() if before.get(name) is not value}
    objects: dict[str, Any] = {}
    names: set[str] = set()
    for value in {id(value): value for value in (*_offered(module), *registered.values())}.values():
        plain, known_as = value.__name__, keras.saving.get_registered_name(value)
        names |= {plain, known_as}
        objects[known_as] = value
        # An own ``Package>Dense`` must not take the place of Keras' Dense, which HDF5 files call the same.
        if known_as == plain or not is_known(None, plain):
            objects[plain] = value
    return CustomObjects(objects=objects, names=frozenset(names), digest=digest)


def _offered(module: types.ModuleType) -> Iterator[Any]:
    """The namespace's layers (models are layers too), and other classes and functions defined there."""
    import keras

    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer):
            if value.__module__.partition(".")[0] != "keras":
                yield value
        elif (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__:
            yield value


def _failed(path: Path, error: BaseException) -> ModelRejectedError:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    line = line or (lines[-1] if lines else None)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return ModelRejectedError(
        "the file of custom objects fails",
        where=f"{path}, line {line}" if line else str(path),
        found=f"{type(error).__name__}: {message}",
        next_step="it must run by itself: python FILE.py; modules beside it are found through PYTHONPATH",
    )
