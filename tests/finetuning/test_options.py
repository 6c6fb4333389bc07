"""Options that make no sense together are refused before any work is done."""

from __future__ import annotations

import math

import pytest

from resnet_edge.errors import UsageError
from resnet_edge.finetuning.options import FinetuneOptions


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"method": "prune", "sparsity": 1.0}, "--sparsity"),
        ({"method": "prune", "sparsity": -0.1}, "--sparsity"),
        ({"method": "prune", "sparsity": math.nan}, "--sparsity"),
        ({"method": "cluster", "clusters": 1}, "--clusters"),
        ({"method": "cluster", "clusters": 300}, "--clusters"),
        ({"epochs": 0}, "--epochs"),
        ({"batch": 0}, "--batch-size"),
        ({"shift": -1}, "--shift"),
        ({"patience": 0}, "--patience"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": math.nan}, "--learning-rate"),
        ({"sparsity": 0.5}, "--method qat"),
        ({"clusters": 32}, "--method qat"),
        ({"method": "prune", "sparsity": 0.5, "recipe": "int8"}, "--method prune"),
    ],
)
def test_refused_with_the_option_named(settings, where):
    with pytest.raises(UsageError) as caught:
        FinetuneOptions(**{"method": "qat", "data": "x", **settings}).check()
    assert caught.value.where == where


@pytest.mark.parametrize(("method", "option"), [("prune", "--sparsity"), ("cluster", "--clusters")])
def test_a_method_asks_for_its_figure(method, option):
    with pytest.raises(UsageError, match=f"needs {option}"):
        FinetuneOptions(method=method, data="x").check()


def test_layers_are_for_pruning_and_clustering():
    with pytest.raises(UsageError, match="--layers goes with"):
        FinetuneOptions(method="qat", data="x", layers=("conv*",)).check()


def test_sensible_options_pass():
    FinetuneOptions(method="qat", data="x").check()
    FinetuneOptions(method="prune", data="x", sparsity=0.0).check()
    FinetuneOptions(method="cluster", data="x", clusters=2, layers=("a",)).check()
