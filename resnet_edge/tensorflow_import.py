"""TensorFlow, loaded without the lines that its libraries write to standard error meanwhile.

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
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from resnet_edge.errors import DependencyMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["tf"]

_CHATTER = re.compile(
    rb"^(WARNING: All log messages before absl::|[IWE]\d{4} |To enable the following ).*\n?", re.M
)
"""What TensorFlow's libraries log before ``TF_CPP_MIN_LOG_LEVEL`` takes effect: whole lines."""


@contextmanager
def _without_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Keep what matches off standard error, and pass on all else that is written there meanwhile.

    Native code does not ask ``sys.stderr``, so the file descriptor itself is redirected for the time being.
    """
    with suppress(AttributeError):  # without a console there is no sys.stderr
        sys.stderr.flush()
    try:
        standard_error = os.dup(2)
    except OSError:  # closed, as in a service: there is nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            kept.seek(0)
            rest = pattern.sub(b"", kept.read())
            with suppress(OSError):
                os.write(2, rest)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    with _without_lines(_CHATTER):
        import tensorflow as tf
except ImportError as error:
    raise DependencyMissingError(
        "TensorFlow cannot be loaded", found=str(error), next_step="pip install tensorflow"
    ) from error
