"""TensorFlow, loaded fast and without the lines that its libraries write to standard error meanwhile.

``from resnet_edge.tensorflow_import import tf``, before anything else imports TensorFlow (Keras does).
``TF_CPP_MIN_LOG_LEVEL``, which silences the lines that come later, is set to 3 unless the user has set it:
what goes wrong is raised as well.

Raises:
    DependencyMissingError: TensorFlow is not installed, or its libraries cannot be loaded.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from resnet_edge.errors import DependencyMissingError
from resnet_edge.memory import without_collection
from resnet_edge.quiet import without_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["tf"]

_CHATTER = re.compile(
    rb"^(WARNING: All log messages before absl::|[IWE]\d{4} |To enable the following ).*\n?", re.MULTILINE
)
"""What TensorFlow's libraries log before ``TF_CPP_MIN_LOG_LEVEL`` takes effect: whole lines."""


@contextmanager
def _without_keras() -> Iterator[None]:
    """Let Keras look as if it were not installed, unless somebody has imported it.

    TensorFlow tries to load Keras for its own sake at the end, and goes without where it is missing. With
    what Keras loads in turn (Matplotlib), that is a quarter of the time and 50 MB. A later import finds it.
    """
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # so "import keras" raises ImportError
    try:
        yield
    finally:
        del sys.modules["keras"]


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    with without_lines(_CHATTER), _without_keras(), without_collection():
        import tensorflow as tf
except ImportError as error:
    raise DependencyMissingError(
        "TensorFlow cannot be loaded", found=str(error), next_step="pip install tensorflow"
    ) from error
