"""tf_keras and tensorflow-model-optimization, loaded quietly and only where something is trained.

tensorflow-model-optimization knows Keras 2 only, which lives on as ``tf_keras`` beside the Keras 3 that
models are made with; the two share TensorFlow and nothing else, so no environment variable has to choose.

Raises:
    DependencyMissingError: One of them is not installed, or does not fit this TensorFlow.
"""

from __future__ import annotations

from resnet_edge.errors import DependencyMissingError
from resnet_edge.tensorflow_import import tf

__all__ = ["sparse_cluster_weights", "tf", "tf_keras", "tfmot"]

try:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    # Has no public name, though the library's own guide imports it from here.
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
        cluster_weights as sparse_cluster_weights,
    )
except ImportError as error:
    raise DependencyMissingError(
        "fine-tuning needs packages that cannot be loaded",
        found=str(error),
        next_step="pip install tensorflow-model-optimization tf-keras",
    ) from error
