"""Weight clustering with tensorflow-model-optimization's wrappers: a layer's weights share few values.

Han, Mao and Dally, "Deep Compression", 2016, section 3: every weight is the nearest of K centroids, and it is
these that are trained. They start by k-means++ (Arthur and Vassilvitskii, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.finetuning.bridge import to_tf_keras, with_weights
from resnet_edge.finetuning.frameworks import sparse_cluster_weights, tfmot
from resnet_edge.finetuning.losses import logits_model
from resnet_edge.graph.operators import Conv2D, Dense, DepthwiseConv2D

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from resnet_edge.graph import Graph, Node


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """A model whose layers have few distinct weights.

    Attributes:
        graph: What it was made from.
        model: Images to outputs.
        logits: The same without a softmax or sigmoid at the end.
        wrappers: tensorflow-model-optimization's, by node name.
    """

    graph: Graph
    model: Any
    logits: Any
    wrappers: Mapping[str, Any]

    @classmethod
    def of(cls, graph: Graph, layers: Sequence[str], clusters: int, *, keep_zeros: bool = False) -> Clustered:
        """Wrap the layers named, but those that have no more distinct weights anyway.

        Args:
            graph: Folded.
            layers: Names of convolutions and dense layers.
            clusters: Distinct values a layer.
            keep_zeros: Whether one of them is zero, and weights that are zero in the graph stay so.

        Raises:
            ModelRejectedError: An operator cannot be fine-tuned; names it.
        """
        initial = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
        settings = {"number_of_clusters": clusters, "cluster_centroids_init": initial}
        wrappers: dict[str, Any] = {}

        def wrap(node: Node, layer: Any) -> Any:
            if node.name not in layers or distinct(node.op.weights()["weight"]) <= clusters:
                return layer
            layer.build((None, *graph.shapes[node.inputs[0]]))  # centroids are chosen when it is wrapped
            wrappers[node.name] = (
                sparse_cluster_weights(layer, preserve_sparsity=True, **settings)
                if keep_zeros
                else tfmot.clustering.keras.cluster_weights(layer, **settings)
            )
            return wrappers[node.name]

        model = to_tf_keras(graph, wrap)
        return cls(graph=graph, model=model, logits=logits_model(model, graph), wrappers=wrappers)

    @property
    def least_steps(self) -> int:
        """None: there are few values from the start."""
        return 0

    def settle(self) -> None:
        """Give every weight its nearest centroid."""
        for wrapper in self.wrappers.values():
            wrapper.update_clustered_weights_associations()

    def result(self) -> Graph:
        """The graph with the trained weights."""
        self.settle()
        weights = {}
        layers = {layer.name: layer for layer in self.model.layers}
        for node in self.graph.nodes:
            if node.name in self.wrappers:
                layer = self.wrappers[node.name].layer
                weights[node.name] = (np.asarray(layer.kernel), np.asarray(layer.bias))
            elif isinstance(node.op, Conv2D | DepthwiseConv2D | Dense):
                weights[node.name] = layers[node.name].get_weights()
        return with_weights(self.graph, weights)


def distinct(weight: np.ndarray[Any, Any]) -> int:
    """How many values occur."""
    return len(np.unique(weight))
