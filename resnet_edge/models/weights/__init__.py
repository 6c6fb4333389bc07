"""Weights for the registry models: from a file, shipped, or downloaded; every tensor accounted for."""

from resnet_edge.models.weights.load import load_weights
from resnet_edge.models.weights.report import WeightsReport
from resnet_edge.models.weights.resolve import resolve_weights

__all__ = ["WeightsReport", "load_weights", "resolve_weights"]
