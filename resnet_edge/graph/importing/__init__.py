"""Import of a Keras model into the graph: functional, Sequential and subclassed, nested, custom layers."""

from resnet_edge.graph.importing.importer import image_shape, import_keras

__all__ = ["image_shape", "import_keras"]
