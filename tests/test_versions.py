"""Versions are told of what is installed."""

from __future__ import annotations

import numpy as np

from resnet_edge.versions import installed_versions


def test_a_package_that_is_not_installed_has_no_version():
    assert installed_versions(("no-such-package-anywhere", "numpy")) == {"numpy": np.__version__}
