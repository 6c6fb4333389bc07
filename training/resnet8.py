"""Train the shipped ``resnet8`` on Fashion-MNIST: ``python -m training.resnet8``.

About 15 minutes on two x86 cores; writes the weights into ``calibration_data/fashion_mnist`` in their
training form, with batch norm, and prints the accuracy on the test images.

``--validate`` keeps the last 5,000 training images apart, prints the accuracy on those and writes nothing.
The learning rate was chosen that way, the rest is customary; the test images were used for the final figure
only.

Seeded, and TensorFlow's deterministic kernels are asked for: a second run on the same machine gives the same
bytes. Another CPU or TensorFlow may sum in another order, and then the weights differ though the accuracy
hardly does.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from safetensors.numpy import save

from resnet_edge.data import shipped
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.models import build_model, find_model
from training.datasets import CLASSES, DESTINATION, write_digests
from training.source import Images, read_test, read_training

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MODEL = "resnet8"
WEIGHTS = "resnet8.safetensors"
PREPROCESSING = Preprocessing.parse("unit", channels=1, input_size=(28, 28))
"""With pixels / 255 an int8 input can have scale 1/255 and zero point -128, and then represents every pixel
exactly; the images' black background is 0, which is also what the convolutions pad with."""

EPOCHS = 24
BATCH = 128
PEAK_LEARNING_RATE = 0.2
WARM_UP_EPOCHS = 2
WEIGHT_DECAY = 1e-3
LABEL_SMOOTHING = 0.05
SHIFT = 2
SEED = 0
VALIDATION_IMAGES = 5_000


class Batches(keras.utils.PyDataset):  # type: ignore[misc] # keras comes without types
    """Shuffled, augmented batches: model inputs and one-hot labels."""

    def __init__(self, data: Images) -> None:
        super().__init__()
        self._data = data
        self._random = np.random.default_rng(SEED)
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self._data.labels) / BATCH)

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Batch ``number`` of this epoch."""
        chosen = self._order[number * BATCH : (number + 1) * BATCH]
        images = augment(self._data.images[chosen], self._random)
        return PREPROCESSING.apply(images), np.eye(CLASSES, dtype=np.float32)[self._data.labels[chosen]]

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._order = self._random.permutation(len(self._data.labels))


def augment(images: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Shift each image by up to ``SHIFT`` pixels each way, and mirror it or not, at random."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    top, left = random.integers(0, 2 * SHIFT + 1, (2, count, 1))
    columns = np.arange(width)
    columns = np.where(random.random((count, 1)) < 0.5, columns, columns[::-1])
    rows = np.arange(height) + top
    columns = columns + left
    shifted: NDArray[np.uint8] = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    return shifted


def train(data: Images, epochs: int) -> keras.Model:
    """A ``resnet8`` trained on ``data``."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    model = build_model(find_model(MODEL), input_shape=data.images.shape[1:], classes=CLASSES)
    batches = Batches(data)
    model.compile(
        _optimizer(len(batches), epochs),
        keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING),
    )
    model.fit(batches, epochs=epochs, shuffle=False, verbose=2)
    return model


def _optimizer(steps_per_epoch: int, epochs: int) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum: linear warm-up, then half a cosine to zero; only kernels decay."""
    warm_up = WARM_UP_EPOCHS * steps_per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=PEAK_LEARNING_RATE,
        warmup_steps=warm_up,
        decay_steps=epochs * steps_per_epoch - warm_up,
    )
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def count_correct(model: keras.Model, data: Images) -> int:
    """How many images the model puts first in the right class."""
    probabilities = model.predict(PREPROCESSING.apply(data.images), batch_size=500, verbose=0)
    return int(np.count_nonzero(probabilities.argmax(axis=1) == data.labels))


def write_weights(model: keras.Model, path: Path) -> None:
    """Write every variable under its Keras path, with what is needed to use them in the header.

    The header has one entry, because the library writes several in a random order.
    """
    card = {
        "model": MODEL,
        "input_shape": list(model.input_shape[1:]),
        "classes": CLASSES,
        "labels": list(shipped.FASHION_MNIST_LABELS),
        "preprocess": PREPROCESSING.name,
        "data": "Fashion-MNIST (MIT licence, Copyright 2017 Zalando SE)",
    }
    tensors = {variable.path: np.ascontiguousarray(variable.numpy()) for variable in model.weights}
    path.write_bytes(save(tensors, metadata={"resnet_edge": json.dumps(card, sort_keys=True)}))


def main() -> None:
    """Train, measure, and write the weights unless this run is for validation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--validate", action="store_true", help="hold 5,000 training images back, write nothing"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="above 2; default: %(default)s")
    options = parser.parse_args()
    training, held_out = read_training(), read_test()
    if options.validate:
        training, held_out = _split(training)
    start = time.monotonic()
    model = train(training, options.epochs)
    minutes = (time.monotonic() - start) / 60
    correct, total = count_correct(model, held_out), len(held_out.labels)
    print(f"{correct} of {total} correct ({100 * correct / total:.2f} %) after {minutes:.1f} minutes")
    if not options.validate:
        write_weights(model, DESTINATION / WEIGHTS)
        write_digests(DESTINATION)


def _split(data: Images) -> tuple[Images, Images]:
    return (
        Images(images=data.images[:-VALIDATION_IMAGES], labels=data.labels[:-VALIDATION_IMAGES]),
        Images(images=data.images[-VALIDATION_IMAGES:], labels=data.labels[-VALIDATION_IMAGES:]),
    )


if __name__ == "__main__":
    main()
