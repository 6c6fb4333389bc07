"""Trained models on images prepared rightly and wrongly; nothing here looks at a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from resnet_edge.data import shipped
from resnet_edge.data.preprocessing import Preprocessing
from resnet_edge.graph.importing import import_keras
from resnet_edge.graph.operators import BatchNorm
from resnet_edge.models.source import open_source
from resnet_edge.pipeline import ExportOptions
from resnet_edge.quantization.doctor import LEAST_IMAGES, Diagnosis, Kind, examine
from tests.graph_builder import GraphBuilder, images
from tests.shared_data import shared_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnet_edge.graph import Graph


@dataclass(frozen=True, kw_only=True)
class Patient:
    graph: Graph
    contract: Preprocessing
    pixels: NDArray[np.uint8]

    def examined(self, inputs: NDArray[np.float32], contract: Preprocessing | None = None) -> Diagnosis:
        return examine(self.graph, inputs, contract or self.contract)


def patient(model: str, options: ExportOptions, pixels: NDArray[np.uint8]) -> Patient:
    source = open_source(model, options)
    return Patient(graph=import_keras(source.model), contract=source.preprocessing, pixels=pixels)


def cifar(start: int = 0) -> NDArray[np.uint8]:
    with np.load(shared_file("cifar10_train1000.npz")) as file:
        return np.asarray(file["images"][start : start + 128])


@pytest.fixture(scope="module")
def resnet8() -> Patient:
    return patient(str(shared_file("mlperf_tiny_resnet8.h5")), ExportOptions(), cifar())


@pytest.fixture(scope="module")
def resnet20() -> Patient:
    weights = str(shared_file("cifar10_resnet20.safetensors"))
    return patient("resnet20", ExportOptions(weights=weights), cifar())


@pytest.fixture(scope="module")
def shipped_model() -> Patient:
    with np.load(shipped.dataset("fashion-mnist").calibration) as file:
        return patient("resnet8", ExportOptions(weights="fashion-mnist"), file["images"][:128])


RGB = ["resnet8", "resnet20"]
ALL = [*RGB, "shipped_model"]


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Patient:
    found: Patient = request.getfixturevalue(request.param)
    return found


all_models = pytest.mark.parametrize("subject", ALL, indirect=True)
rgb_models = pytest.mark.parametrize("subject", RGB, indirect=True)


@all_models
@pytest.mark.parametrize("count", [LEAST_IMAGES, 128])
def test_right_images_are_healthy(subject, count):
    diagnosis = subject.examined(subject.contract.apply(subject.pixels[:count]))
    assert (diagnosis.kind, diagnosis.message) == (Kind.NOTHING, "")
    assert min(diagnosis.evidence, key=diagnosis.evidence.__getitem__) == "as given"


@rgb_models
@pytest.mark.parametrize("start", range(100, 900, 200))
def test_other_right_images_are_healthy(subject, start):
    assert subject.examined(subject.contract.apply(cifar(start))).healthy


@all_models
def test_inverted_images(subject):
    diagnosis = subject.examined(subject.contract.apply(255 - subject.pixels))
    assert diagnosis.kind is Kind.INVERTED
    assert "invert" in diagnosis.message


@rgb_models
def test_blue_and_red_swapped(subject):
    swapped = np.ascontiguousarray(subject.pixels[..., ::-1])
    diagnosis = subject.examined(subject.contract.apply(swapped))
    assert diagnosis.kind is Kind.CHANNEL_ORDER
    assert "red and blue" in diagnosis.message


@pytest.mark.parametrize(
    ("subject", "given", "kind"),
    [
        ("resnet8", "unit", Kind.SCALE),
        ("resnet8", "torch", Kind.NORMALIZATION),
        ("resnet8", "caffe", Kind.NORMALIZATION),
        ("resnet20", "raw", Kind.NORMALIZATION),
        ("resnet20", "unit", Kind.NORMALIZATION),
        ("resnet20", "tf", Kind.NORMALIZATION),
        ("shipped_model", "raw", Kind.SCALE),
        ("shipped_model", "tf", Kind.NORMALIZATION),
    ],
    indirect=["subject"],
)
def test_the_contract_of_another_model(subject, given, kind):
    contract = Preprocessing.parse(given, subject.contract.channels, subject.contract.input_size)
    diagnosis = subject.examined(contract.apply(subject.pixels), contract)
    assert diagnosis.kind is kind
    assert f"prepared as {given!r} instead of {subject.contract.name!r}" in diagnosis.message
    assert "--preprocess" in diagnosis.message


@pytest.mark.parametrize(
    ("subject", "divisor", "mistake"),
    [("resnet8", 255, "0 to 1"), ("resnet20", 255, "0 to 1"), ("resnet20", 1, "0 to 255")],
    indirect=["subject"],
)
def test_float_pixels_instead_of_model_inputs(subject, divisor, mistake):
    diagnosis = subject.examined(subject.pixels / np.float32(divisor))
    assert not diagnosis.healthy
    assert f"pixels of {mistake} given as model inputs" in diagnosis.message


def test_noise_is_not_explained(resnet8):
    noise = np.random.default_rng(0).integers(0, 256, resnet8.pixels.shape, np.uint8)
    diagnosis = resnet8.examined(resnet8.contract.apply(noise))
    assert diagnosis.kind is Kind.UNEXPLAINED
    assert "no known mistake" in diagnosis.message


def test_large_images_are_looked_at_through_windows(resnet20):
    """The same network on CIFAR images side by side, 4 by 4."""
    tiles = np.tile(
        cifar()[:64].reshape(16, 4, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(16, 32, 128, 3), (1, 4, 1, 1)
    )
    source = open_source(
        "resnet20",
        ExportOptions(weights=str(shared_file("cifar10_resnet20.safetensors")), input_shape=(128, 128, 3)),
    )
    large = Patient(graph=import_keras(source.model), contract=source.preprocessing, pixels=tiles)
    assert large.examined(large.contract.apply(tiles)).healthy
    assert large.examined(large.contract.apply(255 - tiles)).kind is Kind.INVERTED


def with_fresh_batch_norm() -> Graph:
    builder = GraphBuilder((8, 8, 3))
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    fresh = BatchNorm(gamma=ones, beta=zeros, mean=zeros, variance=ones, epsilon=1e-3)
    return builder.classified(builder.add(fresh, builder.conv(builder.image, 4)))


def without_batch_norm() -> Graph:
    builder = GraphBuilder((8, 8, 3))
    return builder.classified(builder.conv(builder.image, 4))


@pytest.mark.parametrize("make", [with_fresh_batch_norm, without_batch_norm])
def test_models_without_trained_batch_norms_are_not_examined(make):
    contract = Preprocessing.parse("raw", 3, (8, 8))
    diagnosis = examine(make(), images(make(), LEAST_IMAGES), contract)
    assert diagnosis.kind is Kind.NOT_EXAMINED
    assert diagnosis.healthy


def test_too_few_images_are_not_examined(shipped_model):
    inverted = shipped_model.contract.apply(255 - shipped_model.pixels)
    assert shipped_model.examined(inverted[: LEAST_IMAGES - 1]).kind is Kind.NOT_EXAMINED
    assert shipped_model.examined(inverted[:LEAST_IMAGES]).kind is Kind.INVERTED
