"""Random weights that leave nothing at its default: every mistake in a mapping must change the output."""

from __future__ import annotations

import zlib

import numpy as np


def random_value(layer: str, role: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array for the variable ``role`` (Keras' name) of a layer, the same for the same names.

    Variances span four decades, as in trained models with dead channels, and scales are of both signs; a
    scale goes with its variance, so that a batch norm's factor is near one and deep models do not overflow.
    """
    random = np.random.default_rng(zlib.crc32(layer.encode()))
    if role == "kernel":
        return random.normal(0, np.sqrt(1 / np.prod(shape[:-1])), shape).astype(np.float32)
    if role in {"moving_variance", "gamma"}:
        variance = 10 ** random.uniform(-3, 1, shape)
        factor = random.choice([-1, 1], shape) * random.uniform(0.5, 1, shape)
        return (variance if role == "moving_variance" else factor * np.sqrt(variance)).astype(np.float32)
    offset = np.random.default_rng(zlib.crc32(f"{layer}/{role}".encode()))
    return offset.normal(0, 0.2, shape).astype(np.float32)


def randomize(model) -> None:
    """Give every variable of a Keras model such a value."""
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(random_value(layer.name, variable.name, tuple(variable.shape)))


def randomize_torch(module) -> None:
    """The same for a PyTorch module."""
    import torch

    norms = {name for name, child in module.named_modules() if isinstance(child, torch.nn.BatchNorm2d)}
    roles = {"running_var": "moving_variance", "running_mean": "moving_mean"}
    for name, tensor in module.state_dict().items():
        layer, _, suffix = name.rpartition(".")
        if suffix == "num_batches_tracked":
            continue
        role = ("gamma" if layer in norms else "kernel") if suffix == "weight" else roles.get(suffix, "bias")
        # Keras has the output channels last, PyTorch first; the fan-in is the rest.
        value = random_value(layer, role, (*tensor.shape[1:], tensor.shape[0]))
        tensor.copy_(torch.from_numpy(np.moveaxis(value, -1, 0).copy()))


def images(shape: tuple[int, ...], count: int = 2) -> np.ndarray:
    """Seeded standard normal NHWC model inputs."""
    return np.random.default_rng(7).normal(0, 1, (count, *shape)).astype(np.float32)


def relative_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """max |actual - expected| / max |expected|."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
