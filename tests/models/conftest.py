"""PyTorch's side of the comparisons, where it is installed."""

from __future__ import annotations

import importlib
import os
import sys

import pytest


def import_or_skip(name: str):
    """The module; skips the test where it is absent, but fails it under CI."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing: {error}")
        pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session")
def torch():
    return import_or_skip("torch")


@pytest.fixture(scope="session")
def torchvision_models(torch):
    """``torchvision.models``, also where its compiled operators do not fit the installed PyTorch.

    The wheels on PyPI are built for CUDA; beside a CPU build of PyTorch their operators do not load, and the
    import then fails for want of two declarations. The classification models need no operator of theirs.
    """
    import_or_skip("importlib.util")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return import_or_skip("torchvision.models")


@pytest.fixture(scope="session")
def timm(torchvision_models):
    """timm is compared with where it is installed; it is not among the test dependencies."""
    return pytest.importorskip("timm", reason="timm is not installed")
