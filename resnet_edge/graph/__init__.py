"""The framework-neutral float graph: operators, nodes, and their float execution."""

from resnet_edge.graph.graph import INPUT_NAME, OUTPUT_NAMES, Graph, GraphEditor, Node

__all__ = ["INPUT_NAME", "OUTPUT_NAMES", "Graph", "GraphEditor", "Node"]
