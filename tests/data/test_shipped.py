from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from resnet_edge.data import shipped
from resnet_edge.errors import DependencyMissingError, UsageError

ROOT = Path(__file__).resolve().parents[2]

FILES = ("calibration.npz", "resnet8.safetensors", "test.npz")

PROBE = """
import site, sys
site.addsitedir(sys.argv[1])
from resnet_edge.data import shipped
found = shipped.dataset("fashion-mnist")
print(found.calibration, shipped.weights("resnet8-fashion-mnist"), found.test, sep="\\n")
"""


def locate(site_folder: Path) -> list[Path]:
    """What the locator finds in an isolated interpreter with nothing but ``site_folder`` to import from."""
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(site_folder)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=site_folder)
    return [Path(line) for line in found.stdout.splitlines()]


def install(hook: str, folder: Path) -> Path:
    """Build with hatchling's ``hook`` and unpack the wheel, as pip does with a pure one."""
    build = f"import hatchling.build, sys; hatchling.build.{hook}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], check=True, capture_output=True, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    site_folder = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_folder)
    return site_folder


def test_found_from_a_checkout():
    folder = ROOT / "calibration_data" / "fashion_mnist"
    assert locate(ROOT) == [folder / name for name in FILES]


def test_found_from_an_editable_install(tmp_path):
    folder = ROOT / "calibration_data" / "fashion_mnist"
    site_folder = install("build_editable", tmp_path)
    # The data is copied all the same, but Python takes the package from the checkout.
    assert not (site_folder / "resnet_edge" / "__init__.py").exists()
    assert locate(site_folder) == [folder / name for name in FILES]


def test_found_from_a_wheel(tmp_path):
    site_folder = install("build_wheel", tmp_path)
    folder = site_folder / "resnet_edge" / "_calibration_data" / "fashion_mnist"
    assert locate(site_folder) == [folder / name for name in FILES]
    for name in (*FILES, "LICENSE", "README.md", "SHA256SUMS"):
        checkout = ROOT / "calibration_data" / "fashion_mnist" / name
        assert (folder / name).read_bytes() == checkout.read_bytes()


def test_an_incomplete_installation_names_both_places(tmp_path, monkeypatch):
    places = (tmp_path / "package", tmp_path / "checkout")
    monkeypatch.setattr(shipped, "_PLACES", places)
    with pytest.raises(DependencyMissingError) as caught:
        shipped.dataset("fashion-mnist")
    for place in places:
        assert str(place / "fashion_mnist" / "calibration.npz") in caught.value.where


def test_other_names_are_usage_errors():
    with pytest.raises(UsageError, match="fashion-mnist"):
        shipped.dataset("mnist")
    with pytest.raises(UsageError, match="resnet8-fashion-mnist"):
        shipped.weights("resnet8")
