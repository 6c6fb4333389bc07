"""Import of a Keras model into the graph: functional, Sequential and subclassed, nested, custom layers."""

from resnet_edge.graph.importing.importer import import_keras

__all__ = ["import_keras"]
