"""The ResNets that have a name, their weights, and the user's own model files.

Importing this package loads no framework.
"""

from resnet_edge.models.build import build_model
from resnet_edge.models.registry import MODELS, find_model
from resnet_edge.models.spec import Block, Family, Head, ModelSpec, Published, Shortcut

__all__ = [
    "MODELS",
    "Block",
    "Family",
    "Head",
    "ModelSpec",
    "Published",
    "Shortcut",
    "build_model",
    "find_model",
]
