"""Magnitude pruning with tensorflow-model-optimization's wrappers: the smallest weights become zero.

Zhu and Gupta, "To prune, or not to prune", 2017: the share of zeros grows along a cubic over the first part
of training, and the rest of it repairs what that has broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_edge.finetuning.bridge import to_tf_keras, with_weights
from resnet_edge.finetuning.frameworks import tfmot
from resnet_edge.finetuning.losses import logits_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from resnet_edge.graph import Graph, Node

GROWING_SHARE = 0.6
"""Part of the training in which zeros are added."""

_UPDATES = 50
"""How often they are, at most."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A model whose weights become zero while it is trained.

    Attributes:
        graph: What it was made from.
        model: Images to outputs.
        logits: The same without a softmax or sigmoid at the end.
        least_steps: Steps until all zeros are there.
        wrappers: tensorflow-model-optimization's, by node name.
        masks: Its callback that starts the wrappers, and multiplies the masks in.
    """

    graph: Graph
    model: Any
    logits: Any
    least_steps: int
    wrappers: Mapping[str, Any]
    masks: Any

    @classmethod
    def of(cls, graph: Graph, layers: Sequence[str], sparsity: float, steps: int) -> Pruned:
        """Wrap the layers named.

        Args:
            graph: Folded.
            layers: Names of convolutions and dense layers.
            sparsity: Share of each one's weights that becomes zero.
            steps: Of the whole training.

        Raises:
            ModelRejectedError: An operator cannot be fine-tuned; names it.
        """
        growing = max(1, int(steps * GROWING_SHARE))
        every = max(1, growing // _UPDATES)
        last = max(1, growing // every) * every
        wrappers: dict[str, Any] = {}

        def wrap(node: Node, layer: Any) -> Any:
            if node.name not in layers:
                return layer
            schedule = tfmot.sparsity.keras.PolynomialDecay(
                initial_sparsity=0.0,
                final_sparsity=sparsity,
                begin_step=0,
                end_step=last,
                frequency=every,
            )
            wrappers[node.name] = tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
            return wrappers[node.name]

        model = to_tf_keras(graph, wrap)
        masks = tfmot.sparsity.keras.UpdatePruningStep()
        masks.set_model(model)
        masks.on_train_begin()
        return cls(
            graph=graph,
            model=model,
            logits=logits_model(model, graph),
            least_steps=last,
            wrappers=wrappers,
            masks=masks,
        )

    def settle(self) -> None:
        """Take out what the last step's gradient has put on weights that are to be zero."""
        self.masks.on_epoch_end(None)

    def result(self) -> Graph:
        """The graph with the trained weights."""
        weights = {
            layer.name: layer.get_weights()
            for layer in (getattr(each, "layer", each) for each in self.model.layers)
            if layer.name in self.graph.by_name and layer.get_weights()
        }
        return with_weights(self.graph, weights)


def zeros(weight: np.ndarray[Any, Any]) -> float:
    """The share of zeros."""
    return float(np.mean(weight == 0))
