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

from resnet_edge.errors import DependencyMissingError
from resnet_edge.quiet import without_lines

__all__ = ["tf"]

_CHATTER = re.compile(
    rb"^(WARNING: All log messages before absl::|[IWE]\d{4} |To enable the following ).*\n?", re.MULTILINE
)
"""What TensorFlow's libraries log before ``TF_CPP_MIN_LOG_LEVEL`` takes effect: whole lines."""

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    with without_lines(_CHATTER):
        import tensorflow as tf
except ImportError as error:
    raise DependencyMissingError(
        "TensorFlow cannot be loaded", found=str(error), next_step="pip install tensorflow"
    ) from error
