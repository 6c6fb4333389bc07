"""The training loop: validation, the best weights, and a state from which it goes on after a stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from resnet_edge.errors import ConversionFailedError
from resnet_edge.finetuning.frameworks import tf, tf_keras
from resnet_edge.finetuning.progress import Epoch, Progress

if TYPE_CHECKING:
    from pathlib import Path

    from resnet_edge.finetuning.images import Stream
    from resnet_edge.finetuning.losses import Objective
    from resnet_edge.finetuning.options import FinetuneOptions
    from resnet_edge.stages import Stages

LAST_RATE = 0.05
"""Where the cosine of the learning rate ends, as a share of its peak."""


class Student(Protocol):
    """A model in training, and what its method asks of the loop."""

    @property
    def logits(self) -> Any:
        """Images to logits: a ``tf_keras.Model``."""
        ...

    @property
    def least_steps(self) -> int:
        """Steps after which the weights are what the method promises; only then can an epoch be the best."""
        ...

    def settle(self) -> None:
        """Bring the weights into the form that they will be exported in: before validation."""
        ...


def be_deterministic(seed: int) -> None:
    """Let TensorFlow compute the same in every run on a machine; holds for the rest of the process."""
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """Trains a student.

    Attributes:
        student: The model.
        objective: The loss.
        training: Images to train on.
        validation: Images to validate on.
        options: Epochs, rate, patience.
        stages: Shows the progress.
        state: File that keeps the state after every epoch; training goes on from there if it is present.
    """

    student: Student
    objective: Objective
    training: Stream
    validation: Stream
    options: FinetuneOptions
    stages: Stages
    state: Path

    def run(self, before: Epoch) -> tuple[Epoch, ...]:
        """Train; the student is left with the weights of its best epoch, which can be those that it had.

        Args:
            before: What :meth:`untrained` said.

        Raises:
            ConversionFailedError: The loss became infinite or undefined.
        """
        progress = Progress.load(self.state, self._everything)
        if not progress.epochs and not self.student.least_steps:
            progress = Progress(best=self._model_values(), start=before.validation_loss)
        epochs = self.options.epochs
        with self.stages.stage(f"train {epochs} epochs", total=epochs * len(self.training)) as done:
            while not progress.finished(epochs, self.options.patience):
                number = len(progress.epochs) + 1
                loss = self._epoch(number, done)
                self.student.settle()
                epoch = self._validated(number, loss)
                with self.stages.stage(epoch.sentence(epochs)):
                    eligible = number * len(self.training) >= self.student.least_steps
                    progress = progress.after(epoch, self._model_values(), eligible=eligible)
                    progress.save(self.state, self._everything)
        if progress.best is not None:
            for variable, value in zip(self._model_variables, progress.best, strict=True):
                variable.assign(value)
        self.student.settle()
        return progress.epochs

    def untrained(self) -> Epoch:
        """The student as it is, under the number 0."""
        return self._validated(0, math.nan)

    def _epoch(self, number: int, done: Any) -> float:
        """One pass over the images; the mean loss."""
        before, losses = (number - 1) * len(self.training), []
        for step, (images, labels) in enumerate(self.training.shuffled(number), 1):
            loss = float(self._train(images, labels))
            if not math.isfinite(loss):
                raise ConversionFailedError(
                    "the training has diverged",
                    where=f"epoch {number}, step {step} of {len(self.training)}",
                    found=f"a loss of {loss}",
                    next_step=f"give a lower rate than {self.options.rate:g} with --learning-rate; "
                    "nothing was written",
                )
            losses.append(loss)
            done(before + step)
        return float(np.mean(losses))

    def _validated(self, number: int, loss: float) -> Epoch:
        total, hits, images = 0.0, 0, 0
        for batch, labels in self.validation.ordered():
            value, right = self._judge(batch, labels)
            images += len(batch)
            total, hits = total + float(value) * len(batch), hits + int(right)
        return Epoch(
            number=number,
            loss=None if math.isnan(loss) else loss,
            validation_loss=total / images,
            validation_accuracy=hits / images,
            labelled=self.validation.dataset.labels is not None,
        )

    @cached_property
    def _optimizer(self) -> Any:
        steps = self.options.epochs * len(self.training)
        schedule = tf_keras.optimizers.schedules.CosineDecay(self.options.rate, steps, alpha=LAST_RATE)
        optimizer = tf_keras.optimizers.Adam(schedule)
        optimizer.build(self._trained)
        return optimizer

    @cached_property
    def _trained(self) -> list[Any]:
        return _distinct(self.student.logits.trainable_variables)

    @cached_property
    def _model_variables(self) -> list[Any]:
        return _distinct(self.student.logits.variables)

    @property
    def _everything(self) -> list[Any]:
        """All variables that the next step depends on, in an order that every run shares."""
        return [*self._model_variables, *self._optimizer.variables]

    def _model_values(self) -> list[np.ndarray[Any, Any]]:
        return [np.asarray(variable) for variable in self._model_variables]

    @cached_property
    def _train(self) -> Any:
        return tf.function(self._train_eagerly)

    def _train_eagerly(self, images: Any, labels: Any) -> Any:
        """One step; its loss."""
        with tf.GradientTape() as tape:
            logits = self.student.logits(images, training=True)
            loss = self.objective.value(images, labels, logits)
        gradients = tape.gradient(loss, self._trained)
        self._optimizer.apply_gradients(zip(gradients, self._trained, strict=True))
        return loss

    @cached_property
    def _judge(self) -> Any:
        return tf.function(self._judge_eagerly)

    def _judge_eagerly(self, images: Any, labels: Any) -> Any:
        """The loss of a batch, and how many predictions are right."""
        logits = self.student.logits(images, training=False)
        return self.objective.value(images, labels, logits), self.objective.hits(images, labels, logits)


def _distinct(variables: list[Any]) -> list[Any]:
    """Each variable once: layers that share a scale all list it."""
    return list({id(variable): variable for variable in variables}.values())
