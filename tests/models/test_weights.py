"""Weight files of every kind into a model: all tensors or a clear refusal."""

from __future__ import annotations

import json
import sys
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_edge.errors import (
    DependencyMissingError,
    ModelRejectedError,
    ResnetEdgeError,
    UnsafeFileError,
    UsageError,
)
from resnet_edge.models import MODELS, Shortcut, build_model, find_model
from resnet_edge.models.weights import load_weights, resolve_weights
from resnet_edge.models.weights.identify import _NAMES_BY_BODY
from tests.models.randomized import randomize

TORCH_ROLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def variables_of(model):
    return {f"{layer.name}/{v.name}": v.numpy() for layer in model.layers for v in layer.weights}


def in_torch_naming(model):
    """The model's variables as PyTorch would name and lay them out."""
    tensors = {}
    for name, value in variables_of(model).items():
        layer, role = name.split("/")
        value = value.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim])
        tensors[f"{layer}.{TORCH_ROLES.get(role, role)}"] = np.ascontiguousarray(value)
    return tensors


@pytest.fixture(scope="module")
def trained():
    """A resnet20 whose variables are all different."""
    model = build_model(find_model("resnet20"), seed=None)
    randomize(model)
    return model


@pytest.fixture
def resnet20():
    return build_model(find_model("resnet20"), seed=None)


def save(model, path):
    """Save by the ending of ``path``."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix in {".h5", ".keras"}:
        model.save(path)
    elif path.suffix == ".npz":
        np.savez(path, **variables_of(model))
    else:
        save_file(in_torch_naming(model), path)
    return path


def assert_same_weights(actual, expected):
    theirs = variables_of(expected)
    for name, value in variables_of(actual).items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


FORMATS = ["w.keras", "w.h5", "w.weights.h5", "w.npz", "w.safetensors"]


@pytest.mark.parametrize("file", FORMATS)
def test_every_format_gives_back_what_was_saved(file, trained, resnet20, tmp_path):
    report = load_weights(resnet20, find_model("resnet20"), save(trained, tmp_path / file))
    assert_same_weights(resnet20, trained)
    assert report.kind == "file"
    assert report.tensors == len(trained.variables)
    assert len(report.digest) == 64
    # Only PyTorch's naming says that these are akamaster's or alike; what Keras saved may be anybody's.
    assert report.preprocessing == ("torch" if file.endswith(".safetensors") else None)


def test_older_keras_files_without_names_go_by_order(trained, resnet20, tmp_path):
    path = save(trained, tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    report = load_weights(resnet20, find_model("resnet20"), path)
    assert report.naming == "keras-order"
    assert_same_weights(resnet20, trained)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_wrapped_names_and_step_counters_are_understood(prefix, trained, resnet20, tmp_path):
    tensors = {prefix + name: value for name, value in in_torch_naming(trained).items()}
    tensors[f"{prefix}bn1.num_batches_tracked"] = np.array(7)
    save_file(tensors, tmp_path / "w.safetensors")
    load_weights(resnet20, find_model("resnet20"), tmp_path / "w.safetensors")
    assert_same_weights(resnet20, trained)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_other_precisions_become_float32(dtype, trained, resnet20, tmp_path):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    tensors = {name: value.astype(dtype) for name, value in in_torch_naming(trained).items()}
    save_file(tensors, tmp_path / "w.safetensors")
    load_weights(resnet20, find_model("resnet20"), tmp_path / "w.safetensors")
    kernel = resnet20.get_layer("conv1").kernel.numpy()
    expected = trained.get_layer("conv1").kernel.numpy().astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(kernel, expected)


def test_card_in_the_header_tells_preprocessing_and_labels(trained, resnet20, tmp_path):
    card = {"resnet_edge": json.dumps({"preprocess": "unit", "labels": ["a", "b"]})}
    save_file(variables_of(trained), tmp_path / "w.safetensors", metadata=card)
    report = load_weights(resnet20, find_model("resnet20"), tmp_path / "w.safetensors")
    assert report.preprocessing == "unit"
    assert report.labels == ("a", "b")


@pytest.mark.parametrize("card", ["{", "3", "[1]"])
def test_header_that_is_no_card_is_refused(card, trained, resnet20, tmp_path):
    save_file(variables_of(trained), tmp_path / "w.safetensors", metadata={"resnet_edge": card})
    with pytest.raises(ModelRejectedError):
        load_weights(resnet20, find_model("resnet20"), tmp_path / "w.safetensors")


def test_every_row_can_be_told_by_its_body():
    assert len(_NAMES_BY_BODY) == len(MODELS)


@pytest.mark.parametrize(
    ("mine", "theirs", "naming", "classes"),
    [
        ("resnet50", "resnet50v1.5", "torch", 1000),
        ("resnet50", "resnet50v1.5", "torch", 7),
        ("resnet50v1.5", "resnet50", "keras", 1000),
        ("resnet50", "resnet50v2", "keras", 5),
        ("resnet34", "resnet18", "torch", 1000),
        ("resnet56", "resnet20", "torch", 10),
        ("resnet50v1.5", "wide_resnet50_2", "torch", 3),
        ("resnet50v1.5", "resnet50d", "torch", 1000),
        ("resnet20", "resnet20v2", "torch", 10),
    ],
)
def test_weights_of_another_model_are_told_by_name(mine, theirs, naming, classes, tmp_path):
    other = build_model(find_model(theirs), classes=classes, seed=None)
    save_file(
        in_torch_naming(other) if naming == "torch" else variables_of(other), tmp_path / "w.safetensors"
    )
    spec = find_model(mine)
    with pytest.raises(ModelRejectedError, match=f"weights of {theirs}, not of {mine}") as caught:
        load_weights(build_model(spec, seed=None), spec, tmp_path / "w.safetensors")
    assert theirs in caught.value.next_step


def refusal(trained, tmp_path, **options):
    spec = find_model("resnet20")
    with pytest.raises(ModelRejectedError) as caught:
        load_weights(build_model(spec, seed=None, **options), spec, save(trained, tmp_path / "w.safetensors"))
    return caught.value


def test_wrong_class_count_says_what_to_give(trained, tmp_path):
    error = refusal(trained, tmp_path, classes=7)
    assert "10 classes in the file, 7 in the model" in error.found
    assert error.next_step == "--classes 10"


def test_wrong_channel_count_says_what_to_give(trained, tmp_path):
    error = refusal(trained, tmp_path, input_shape=(32, 32, 1))
    assert "3 channel(s) in the file, 1 in the model" in error.found
    assert "--input-shape" in error.next_step


def test_other_shortcut_says_which(trained, tmp_path):
    assert refusal(trained, tmp_path, shortcut=Shortcut.PROJECTION).next_step.endswith("--shortcut A")


def test_another_width_lists_shapes_and_cuts_the_list(trained, tmp_path):
    error = refusal(trained, tmp_path, width=0.5)
    assert "96 of another shape: conv1.weight (3, 3, 3, 16) for (3, 3, 3, 8)" in error.found
    assert "and 91 more" in error.found


def test_missing_and_unexpected_tensors_are_listed(trained, resnet20, tmp_path):
    tensors = in_torch_naming(trained)
    tensors["extra.weight"] = tensors.pop("layer2.1.conv1.weight")
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ModelRejectedError) as caught:
        load_weights(resnet20, find_model("resnet20"), tmp_path / "w.safetensors")
    assert "1 missing: layer2.1.conv1/kernel" in caught.value.found
    assert "1 unexpected: extra.weight" in caught.value.found


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_named(value, trained, resnet20, tmp_path):
    tensors = in_torch_naming(trained)
    tensors["layer3.2.bn2.running_var"] = tensors["layer3.2.bn2.running_var"].copy()
    tensors["layer3.2.bn2.running_var"][5] = value
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ModelRejectedError, match="not finite") as caught:
        load_weights(resnet20, find_model("resnet20"), tmp_path / "w.safetensors")
    assert caught.value.where.startswith("layer3.2.bn2.running_var in ")
    assert caught.value.found.startswith("1 of 64 values")


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_truncated_files_are_refused(file, share, trained, resnet20, tmp_path):
    path = save(trained, tmp_path / file)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelRejectedError) as caught:
        load_weights(resnet20, find_model("resnet20"), path)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("file", [*FORMATS, "w.th"])
def test_text_under_a_weight_file_s_name_is_refused(file, resnet20, tmp_path, request):
    if file == "w.th":
        request.getfixturevalue("torch")
    (tmp_path / file).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelRejectedError):
        load_weights(resnet20, find_model("resnet20"), tmp_path / file)


def test_pickled_objects_in_an_npz_are_refused(resnet20, tmp_path):
    arrays = variables_of(resnet20)
    arrays["conv1/kernel"] = np.full((3, 3, 3, 16), None, dtype=object)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ModelRejectedError):
        load_weights(resnet20, find_model("resnet20"), tmp_path / "w.npz")


@pytest.mark.parametrize("shape", [(5, 5, 3, 16), (16,), (3, 3, 3, 16, 1)])
def test_another_stem_is_no_question_of_channels(shape, trained, resnet20, tmp_path):
    arrays = variables_of(trained) | {"conv1/kernel": np.zeros(shape, np.float32)}
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ModelRejectedError, match="do not fit resnet20") as caught:
        load_weights(resnet20, find_model("resnet20"), tmp_path / "w.npz")
    assert f"conv1/kernel {shape}" in caught.value.found


def test_links_out_of_an_hdf5_file_are_refused(trained, resnet20, tmp_path):
    path = save(trained, tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = h5py.ExternalLink("/etc/passwd", "x")
    with pytest.raises(UnsafeFileError):
        load_weights(resnet20, find_model("resnet20"), path)


def test_archive_with_other_entries_is_refused(trained, resnet20, tmp_path):
    path = save(trained, tmp_path / "w.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil", "x")
    with pytest.raises(UnsafeFileError):
        load_weights(resnet20, find_model("resnet20"), path)


def test_hdf5_without_weights_is_refused(resnet20, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(ModelRejectedError, match="no Keras weights"):
        load_weights(resnet20, find_model("resnet20"), tmp_path / "w.h5")


class TestCheckpoints:
    @pytest.mark.parametrize("key", [None, "state_dict", "model"])
    def test_state_dicts_are_found(self, key, torch, trained, resnet20, tmp_path):
        state = {name: torch.from_numpy(value) for name, value in in_torch_naming(trained).items()}
        torch.save({key: state, "epoch": 3} if key else state, tmp_path / "w.pt")
        load_weights(resnet20, find_model("resnet20"), tmp_path / "w.pt")
        assert_same_weights(resnet20, trained)

    @pytest.mark.parametrize("share", [0, 0.5, 0.99])
    def test_truncated_checkpoints_are_refused(self, share, torch, trained, resnet20, tmp_path):
        path = tmp_path / "w.pt"
        torch.save({name: torch.from_numpy(value) for name, value in in_torch_naming(trained).items()}, path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ModelRejectedError):
            load_weights(resnet20, find_model("resnet20"), path)

    def test_a_pickled_module_is_refused(self, torch, resnet20, tmp_path):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
        with pytest.raises(ModelRejectedError):
            load_weights(resnet20, find_model("resnet20"), tmp_path / "w.pt")

    def test_a_checkpoint_without_tensors_is_refused(self, torch, resnet20, tmp_path):
        torch.save({"epoch": 3}, tmp_path / "w.pt")
        with pytest.raises(ModelRejectedError, match="no state_dict") as caught:
            load_weights(resnet20, find_model("resnet20"), tmp_path / "w.pt")
        assert caught.value.found == "epoch"

    def test_without_pytorch_the_extra_is_named(self, resnet20, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        (tmp_path / "w.pth").touch()
        with pytest.raises(DependencyMissingError) as caught:
            load_weights(resnet20, find_model("resnet20"), tmp_path / "w.pth")
        assert "pip install 'resnet-edge[torch]'" in caught.value.next_step
        assert caught.value.exit_code == 4


class TestResolve:
    def test_nothing_is_random_and_says_so(self, resnet20):
        report = resolve_weights(find_model("resnet20"), None, resnet20)
        assert report.kind == "random"
        assert "random weights" in report.warnings[0]

    @pytest.mark.parametrize("source", ["imagenet", "fashion-mnist", "no-such.h5", "typo"])
    def test_what_is_not_there_is_a_usage_error(self, source, resnet20):
        with pytest.raises(UsageError):
            resolve_weights(find_model("resnet20"), source, resnet20)

    def test_unknown_ending_is_a_usage_error(self, resnet20, tmp_path):
        (tmp_path / "weights.onnx").touch()
        with pytest.raises(UsageError, match="ending") as caught:
            resolve_weights(find_model("resnet20"), str(tmp_path / "weights.onnx"), resnet20)
        assert ".safetensors" in caught.value.allowed

    def test_a_path_is_a_file(self, trained, resnet20, tmp_path):
        path = save(trained, tmp_path / "w.npz")
        assert resolve_weights(find_model("resnet20"), str(path), resnet20).kind == "file"

    def test_shipped_weights(self):
        spec = find_model("resnet8")
        model = build_model(spec, input_shape=spec.input_shape_with("fashion-mnist"), seed=None)
        report = resolve_weights(spec, "fashion-mnist", model)
        assert report.kind == "fashion-mnist"
        assert report.preprocessing == "unit"
        assert report.labels[0] == "T-shirt/top"


SMALL = (32, 32, 3)


class TestImagenet:
    def test_offline_is_a_missing_dependency(self, monkeypatch, capsys):
        import keras

        def no_network(**_):
            sys.stdout.write("Downloading data from ...")
            raise Exception("URL fetch failure on https://example.org: None -- offline")  # noqa: TRY002

        monkeypatch.setattr(keras.applications, "ResNet50", no_network)
        spec = find_model("resnet50")
        with pytest.raises(DependencyMissingError, match="could not be downloaded") as caught:
            resolve_weights(spec, "imagenet", build_model(spec, input_shape=SMALL, seed=None))
        assert caught.value.exit_code == 4
        assert "URL fetch failure" in caught.value.found
        assert capsys.readouterr().out == "", "stdout belongs to the command's document"

    def test_download_is_moved_over_by_names(self, monkeypatch):
        import keras

        original = keras.applications.ResNet50
        published = original(weights=None, input_shape=SMALL, classes=1000)
        randomize(published)
        monkeypatch.setattr(keras.applications, "ResNet50", lambda **_: published)
        spec = find_model("resnet50")
        model = build_model(spec, input_shape=SMALL, seed=None)
        report = resolve_weights(spec, "imagenet", model)
        assert_same_weights(model, published)
        assert (report.kind, report.preprocessing) == ("imagenet", "caffe")

    def test_other_classes_are_refused(self, monkeypatch):
        import keras

        published = keras.applications.ResNet50(weights=None, input_shape=SMALL, classes=1000)
        monkeypatch.setattr(keras.applications, "ResNet50", lambda **_: published)
        spec = find_model("resnet50")
        with pytest.raises(ResnetEdgeError) as caught:
            resolve_weights(spec, "imagenet", build_model(spec, input_shape=SMALL, classes=5, seed=None))
        assert caught.value.next_step == "--classes 1000"
