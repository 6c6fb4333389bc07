"""Our models against the definitions they follow, with the same random weights: the outputs are equal.

Limit: max |difference| / max |logit| <= 1e-5, ten times what float32 sums in another order were seen to
differ by at a hundred layers. With TensorFlow's SAME instead of PyTorch's padding it is 1e-2 and more.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from resnet_edge.models import build_model, find_model
from resnet_edge.models.weights import load_weights
from tests.models.randomized import images, randomize, randomize_torch, relative_difference
from tests.shared_data import shared_file

LIMIT = 1e-5
LEAST_EFFECT = 1e-4
"""Of the image on the output: where it has none, equal outputs prove nothing."""
SHAPE = (70, 99, 3)
"""Even and odd sides, so that every stride meets both."""

TORCHVISION = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50v1.5": "resnet50",
    "wide_resnet50_2": "wide_resnet50_2",
    "resnext50_32x4d": "resnext50_32x4d",
}
TIMM = {
    "resnet50d": "resnet50d",
    "seresnet50": "seresnet50",
    "resnet18v2": "resnetv2_18",
    "resnet34v2": "resnetv2_34",
}


def compare_with_torch(torch, module, name, path, save):
    randomize_torch(module)
    save(module.state_dict(), path)
    spec = find_model(name)
    model = build_model(spec, input_shape=SHAPE, classes=20, seed=None)
    report = load_weights(model, spec, path)
    batch = images(SHAPE)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.abs(expected[0] - expected[1]).max() > LEAST_EFFECT
    assert relative_difference(model(batch, training=False).numpy(), expected) <= LIMIT
    assert report.naming == "pytorch"
    assert report.preprocessing == spec.preprocessing


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, torch, torchvision_models, tmp_path):
    from safetensors.torch import save_file

    module = getattr(torchvision_models, TORCHVISION[name])(num_classes=20)
    compare_with_torch(torch, module, name, tmp_path / "weights.safetensors", save_file)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name, torch, timm, tmp_path):
    module = timm.create_model(TIMM[name], num_classes=20)
    compare_with_torch(torch, module, name, tmp_path / "weights.pth", torch.save)


@pytest.fixture(scope="module", params=["resnet50", "resnet50v2"])
def application(request):
    """A keras.applications model with random weights, by our name."""
    make = {"resnet50": keras.applications.ResNet50, "resnet50v2": keras.applications.ResNet50V2}
    model = make[request.param](weights=None, input_shape=SHAPE, classes=20)
    randomize(model)
    return request.param, model


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_keras_applications(application, suffix, tmp_path):
    name, theirs = application
    path = tmp_path / f"weights{suffix}"
    if suffix == ".weights.h5":
        theirs.save_weights(path)
    else:
        theirs.save(path)
    spec = find_model(name)
    ours = build_model(spec, input_shape=SHAPE, classes=20, seed=None)
    report = load_weights(ours, spec, path)
    batch = images(SHAPE)
    expected = theirs(batch, training=False).numpy()
    assert np.abs(expected[0] - expected[1]).max() > LEAST_EFFECT
    assert relative_difference(ours(batch, training=False).numpy(), expected) <= LIMIT
    assert report.preprocessing == {"resnet50": "caffe", "resnet50v2": "tf"}[name]


@pytest.mark.parametrize("file", ["cifar10_resnet20.safetensors", "cifar10_resnet20.th"])
def test_trained_resnet20_reproduces_its_logits(file, request):
    path = shared_file(file)
    if path.suffix == ".th":
        request.getfixturevalue("torch")
    spec = find_model("resnet20")
    model = build_model(spec, seed=None)
    report = load_weights(model, spec, path)
    data = np.load(shared_file("cifar10_test500.npz"))
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    logits = model.predict((data["images"] / np.float32(255) - mean) / std, batch_size=100, verbose=0)
    golden = np.load(shared_file("cifar10_resnet20_golden_logits.npz"))["logits"]
    assert np.abs(logits - golden).max() <= 1e-4
    assert (logits.argmax(axis=1) == data["labels"]).mean() == 0.91
    assert report.preprocessing == "torch"


def test_mlperf_tiny_resnet8_from_its_own_file():
    path = shared_file("mlperf_tiny_resnet8.h5")
    spec = find_model("resnet8")
    model = build_model(spec, seed=None)
    report = load_weights(model, spec, path)
    data = np.load(shared_file("cifar10_test500.npz"))
    batch = data["images"].astype(np.float32)
    expected = keras.saving.load_model(path, compile=False).predict(batch, verbose=0)
    # Probabilities; float32 in the same order of operations.
    assert np.abs(model.predict(batch, verbose=0) - expected).max() <= 1e-5
    assert report.naming == "keras-order"
    assert report.preprocessing == "raw"
