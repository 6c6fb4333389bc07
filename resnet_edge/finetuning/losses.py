"""What training minimizes, and what validation tells: on logits, before a softmax or sigmoid at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnet_edge.finetuning.frameworks import tf, tf_keras
from resnet_edge.graph.operators import Elementwise, Function

if TYPE_CHECKING:
    from resnet_edge.finetuning.options import Loss
    from resnet_edge.graph import Graph


def logits_model(model: Any, graph: Graph) -> Any:
    """The model without the softmax or sigmoid that its graph ends in; the layers are shared."""
    return tf_keras.Model(model.input, model.layers[-1].input) if _ends_in(graph) else model


def _ends_in(graph: Graph) -> Function | None:
    op = graph.by_name[graph.output].op
    ends = (Function.SOFTMAX, Function.SIGMOID)
    return op.function if isinstance(op, Elementwise) and op.function in ends else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """The loss of a student's logits.

    Attributes:
        loss: ``distillation`` from the teacher (Hinton, Vinyals and Dean, 2015, at temperature 1), or
            ``cross-entropy`` with the labels.
        teacher: The float model, images to logits.
        independent: Whether the classes are judged each for itself (a sigmoid), not one against the others.
    """

    loss: Loss
    teacher: Any
    independent: bool

    @classmethod
    def of(cls, loss: Loss, teacher: Any, graph: Graph) -> Objective:
        """The objective for a teacher that ``graph`` was made into."""
        independent = _ends_in(graph) is Function.SIGMOID
        return cls(loss=loss, teacher=logits_model(teacher, graph), independent=independent)

    def value(self, images: Any, labels: Any, logits: Any) -> Any:
        """The mean loss of a batch; above zero, and zero only for a student like its goal."""
        if self.loss == "cross-entropy":
            goal, entropy = tf.one_hot(labels, logits.shape[-1]), 0.0
        else:
            teacher = tf.stop_gradient(self.teacher(images, training=False))
            goal = tf.sigmoid(teacher) if self.independent else tf.nn.softmax(teacher)
            # Its own entropy, so that a perfect student has no loss left.
            entropy = self._cross_entropy(goal, teacher)
        return tf.reduce_mean(self._cross_entropy(goal, logits) - entropy)

    def _cross_entropy(self, goal: Any, logits: Any) -> Any:
        if self.independent:
            return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(goal, logits), axis=-1)
        return tf.nn.softmax_cross_entropy_with_logits(goal, logits)

    def hits(self, images: Any, labels: Any, logits: Any) -> Any:
        """How many predictions are the label; where there is none, the teacher's."""
        known = labels >= 0
        wanted = tf.where(known, labels, tf.argmax(self.teacher(images, training=False), axis=-1))
        return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=-1) == wanted, tf.int64))
