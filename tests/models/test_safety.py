"""Model files are checked without Keras: attacks are refused, what Keras writes passes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
import zipfile

import h5py
import numpy as np
import pytest

from resnet_edge.errors import ModelRejectedError, UnsafeFileError
from resnet_edge.models.safety import KNOWN_CLASSES, check_hdf5, check_keras_archive, is_known
from resnet_edge.models.safety.region import _Window
from tests.models.attacks import ATTACKS
from tests.models.model_files import (
    CONFIG,
    WEIGHTS,
    archive,
    entry,
    fill_legacy_weights,
    fill_weights,
    function,
    hdf5,
    legacy,
    model,
)


def check(path, **options):
    return (check_keras_archive if path.suffix == ".keras" else check_hdf5)(path, **options)


def check_config(folder, config, **options):
    return check_keras_archive(archive(folder, config), **options)


@pytest.fixture
def canary(tmp_path):
    """A path that only a successful attack creates, or opens."""
    return tmp_path / "canary"


@pytest.mark.parametrize("write", [archive, hdf5])
def test_the_model_behind_the_attacks_is_harmless(write, tmp_path):
    checked = check(write(tmp_path))
    assert checked is not None
    assert not checked.needs_code


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name, tmp_path, canary):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's, when an attack writes an entry twice
        path = ATTACKS[name](tmp_path, canary)
    with pytest.raises(ModelRejectedError) as caught:
        check(path)
    # A reader that had followed a link would have failed on the canary, which does not exist: another error.
    assert caught.value.__cause__ is None
    assert str(path) in caught.value.where
    assert caught.value.found or name == "endless_heap"
    assert caught.value.next_step
    assert not canary.exists()


PAYLOAD = entry("StringLookup", vocabulary="/etc/hostname")


@pytest.mark.parametrize(
    "config",
    [
        model(kernel_initializer=PAYLOAD),
        model(bias_regularizer={"anything": [{"at any depth": PAYLOAD}]}),
        model(dtype=PAYLOAD),
        model(activation=PAYLOAD),
        model(entry("Activation", activation=PAYLOAD, name="a")),
        model(entry("Sequential", "keras", name="inner", layers=[PAYLOAD])),
        model(entry("Flatten", name="f") | {"build_config": {"input_shape": PAYLOAD}}),
        model(entry("Flatten", name="f") | {"inbound_nodes": [{"args": [], "kwargs": {"mask": PAYLOAD}}]}),
        model(entry("Rescaling", name="r", scale={"class_name": "__slice__", "config": {"start": PAYLOAD}})),
        model() | {"build_config": PAYLOAD},
        model() | {"name": PAYLOAD},
    ],
)
def test_no_place_in_the_configuration_is_overlooked(config, tmp_path):
    with pytest.raises(UnsafeFileError, match="StringLookup"):
        check_config(tmp_path, config)


def test_training_state_is_taken_out_at_every_level(tmp_path):
    """A compiled model, within another, is no reason to refuse: it is not going to be compiled."""
    state = {"optimizer": entry("MyOptimizer", "my_package"), "loss": function("my_loss", "my_package")}
    inner = entry("Sequential", "keras", name="inner", layers=[]) | {"compile_config": state}
    checked = check_config(tmp_path, model(inner) | {"compile_config": state})
    assert checked is not None
    assert "compile_config" not in json.dumps(checked.config)
    assert json.loads(json.dumps(checked.config))["config"]["layers"][1]["class_name"] == "Sequential"


@pytest.mark.parametrize(
    ("layer", "what", "way_out"),
    [
        (entry("LSTM", name="cells", units=4), "not supported", "replace it by supported layers"),
        (entry("Unit", "my_layers", name="u"), "not part of Keras", "--custom-objects"),
        (
            entry("Unit", None, name="u") | {"registered_name": "Mine>Unit"},
            "not part of Keras",
            "--custom-obj",
        ),
        (entry("Lambda", name="code"), "Python code", "--allow-unsafe-code"),
        (entry("Activation", name="a", activation=function("f", "builtins")), "function", "--custom-objects"),
    ],
)
def test_refused_class_has_a_place_and_a_way_out(layer, what, way_out, tmp_path):
    block = entry("Sequential", "keras", name="block", layers=[layer])
    with pytest.raises(ModelRejectedError) as caught:
        check_config(tmp_path, model(block))
    assert what in caught.value.what
    assert f"layer 'block/{layer['config']['name']}'" in caught.value.found
    assert way_out in caught.value.next_step


@pytest.mark.parametrize(
    ("class_name", "what"),
    [
        ("TFOpLambda", "TensorFlow functions"),
        ("SlicingOpLambda", "TensorFlow functions"),
        ("Relu6", "keras.ops on tensors"),
        ("Unit", "not known"),
        ("Mine>Unit", "not part of Keras"),
    ],
)
def test_refused_class_without_a_module(class_name, what, tmp_path):
    config = legacy(model({"class_name": class_name, "config": {"name": "x"}}))
    with pytest.raises(ModelRejectedError, match=what):
        check_hdf5(hdf5(tmp_path, config))


def test_all_unsupported_layers_are_named_at_once(tmp_path):
    layers = [entry("LSTM", name=f"cells{number}") for number in range(7)]
    with pytest.raises(ModelRejectedError) as caught:
        check_config(tmp_path, model(*layers))
    assert "cells0" in caught.value.found
    assert "and 2 more" in caught.value.found
    assert "Conv2D" in caught.value.allowed


class TestCustomClasses:
    NAMES = frozenset({"Unit", "Mine>Unit", "my_activation"})

    @pytest.mark.parametrize(
        "layer",
        [
            entry("Unit", None, name="u") | {"registered_name": "Mine>Unit"},
            entry("Unit", "anywhere", name="u") | {"registered_name": "Unit"},
            entry("Activation", name="a", activation=function("my_activation", "builtins")),
        ],
    )
    def test_pass_and_need_code(self, layer, tmp_path):
        checked = check_config(tmp_path, model(layer), custom_classes=self.NAMES)
        assert checked is not None
        assert checked.needs_code

    def test_pass_in_hdf5(self, tmp_path):
        config = legacy(model({"class_name": "Mine>Unit", "config": {"name": "u"}}))
        checked = check_hdf5(hdf5(tmp_path, config), custom_classes=self.NAMES)
        assert checked is not None
        assert checked.needs_code

    def test_open_no_door_for_others(self, tmp_path):
        """The user's name beside a class of Keras': which of them Keras builds depends on the place."""
        layer = entry("Lambda", name="l") | {"registered_name": "Mine>Unit"}
        with pytest.raises(UnsafeFileError, match="Lambda"):
            check_config(tmp_path, model(layer), custom_classes=self.NAMES)


@pytest.mark.parametrize("name", ["lambda_in_archive", "lambda_in_hdf5", "download_by_get_file"])
def test_code_passes_where_the_user_allows_it(name, tmp_path, canary):
    checked = check(ATTACKS[name](tmp_path, canary), allow_unsafe_code=True)
    assert checked is not None
    assert checked.needs_code


@pytest.mark.parametrize(
    "name", ["pickled_torch_module", "vocabulary_from_a_path", "external_link", "zip_bomb", "enormous_layer"]
)
def test_allowing_code_allows_nothing_else(name, tmp_path, canary):
    with pytest.raises(UnsafeFileError):
        check(ATTACKS[name](tmp_path, canary), allow_unsafe_code=True)


class TestWeightsOnly:
    """Files that only lend their weights: the model in them is never built."""

    def test_unknown_classes_do_not_matter(self, tmp_path):
        config = model(entry("LSTM", name="cells"))
        assert check_keras_archive(archive(tmp_path, config), weights_only=True) is None
        assert check_hdf5(hdf5(tmp_path, legacy(config)), weights_only=True) is None

    @pytest.mark.parametrize("name", ["external_link", "shape_bomb_in_hdf5", "zip_bomb_of_weights"])
    def test_structure_matters(self, name, tmp_path, canary):
        with pytest.raises(UnsafeFileError):
            check(ATTACKS[name](tmp_path, canary), weights_only=True)

    @pytest.mark.parametrize("fill", [fill_weights, fill_legacy_weights])
    def test_a_file_without_a_model_has_no_configuration(self, fill, tmp_path):
        path = tmp_path / "model.weights.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        assert check_hdf5(path) is None


class TestHarmless:
    def test_recompressed_files(self, tmp_path):
        """What tools such as ``zip`` and ``h5repack`` make of a file is the same model."""
        noise = np.random.default_rng(0).normal(size=(512, 1024)).astype(np.float32)
        zeros = np.zeros(100_000, np.float32)  # 400 kB in a few hundred bytes, and nothing suspicious

        def change(file):
            for name, data in (("noise", noise), ("zeros", zeros)):
                file.create_dataset(name, data=data, compression="gzip", shuffle=True, fletcher32=True)

        assert check_keras_archive(archive(tmp_path, change=change, compression=zipfile.ZIP_DEFLATED))
        assert check_hdf5(hdf5(tmp_path, change=change))

    def test_newest_hdf5_layout(self, tmp_path):
        assert check_hdf5(hdf5(tmp_path, libver="latest"))

    def test_empty_and_scalar_datasets(self, tmp_path):
        def change(file):
            file["scalar"], file["none"], file["null"] = 1.0, np.zeros((0, 3)), h5py.Empty("f4")

        assert check_hdf5(hdf5(tmp_path, change=change))

    def test_hard_links_in_a_circle_come_to_an_end(self, tmp_path):
        def change(file):
            file["model_weights/again"] = file["/"]

        assert check_hdf5(hdf5(tmp_path, change=change))


@pytest.mark.parametrize(
    ("content", "name", "found", "way_out"),
    [
        (b"", "m.keras", "empty", "again"),
        (b"weights: none, just a note", "m.h5", "text", "came from"),
        (b"version https://git-lfs.github.com/spec/v1\n", "m.keras", "Git LFS", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n and more", "m.keras", "HDF5", "rename it to .h5"),
        (b"PK\x03\x04 and more", "m.h5", "ZIP", "rename it to .keras"),
        (b"\x00\x01\x02\x03", "m.h5", "bytes 00 01 02 03", "again"),
    ],
)
def test_file_of_another_kind(content, name, found, way_out, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelRejectedError) as caught:
        check(path)
    assert found in caught.value.found
    assert way_out in caught.value.next_step


def test_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(ModelRejectedError, match="cannot be read"):
        check_hdf5(tmp_path / "missing.h5")


@pytest.mark.parametrize("config", ["{", "[]", "null", '{"class_name": 3}', "[" * 100_000, '"\\ud800"'])
def test_configuration_that_is_none(config, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(archive(tmp_path)) as source:
        content = source.read(WEIGHTS)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(CONFIG, config)
        file.writestr(WEIGHTS, content)
    with pytest.raises(ModelRejectedError, match="the model's configuration"):
        check_keras_archive(path)


def test_archive_without_weights(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(CONFIG, json.dumps(model()))
    with pytest.raises(ModelRejectedError, match=r"no model\.weights\.h5"):
        check_keras_archive(path)


@pytest.mark.parametrize("write", [archive, hdf5])
class TestDamage:
    def test_truncated_anywhere(self, write, tmp_path):
        path = write(tmp_path)
        content = path.read_bytes()
        for length in sorted(
            {*range(0, len(content), len(content) // 150), *range(len(content) - 40, len(content))}
        ):
            path.write_bytes(content[:length])
            with pytest.raises(ModelRejectedError):
                check(path)

    def test_changed_bytes(self, write, tmp_path):
        """Any byte may be wrong: the check passes or refuses, but neither crashes nor hangs."""
        path = write(tmp_path)
        content = path.read_bytes()
        draw = random.Random(0)
        refused = 0
        for _ in range(400):
            damaged = bytearray(content)
            for _ in range(draw.choice((1, 1, 8))):
                damaged[draw.randrange(len(damaged))] = draw.choice((0, 255, draw.randrange(256)))
            path.write_bytes(damaged)
            try:
                check(path)
            except ModelRejectedError:
                refused += 1
        assert refused > 50


def test_weights_in_an_archive_are_not_read(tmp_path, monkeypatch):
    """The check costs milliseconds because it looks at HDF5's own bookkeeping only."""
    size = 8 << 20
    big = np.random.default_rng(0).bytes(size)
    path = archive(
        tmp_path, change=lambda file: file.create_dataset("big", data=np.frombuffer(big, np.uint8))
    )
    read = []
    original = _Window.readinto

    def counting(self, buffer):
        read.append(original(self, buffer))
        return read[-1]

    monkeypatch.setattr(_Window, "readinto", counting)
    check_keras_archive(path)
    assert 0 < sum(read) < size / 20


def test_known_classes():
    assert is_known("keras.layers", "Conv2D")
    assert is_known(None, "Conv2D")
    assert not is_known("keras.layers", "Lambda")
    assert not is_known("keras.initializers", "Conv2D")
    assert not is_known("keras.losses", "Conv2D")
    unsafe = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "StringLookup", "Wrapper"}
    assert not unsafe & set().union(*KNOWN_CLASSES.values())


def test_no_framework_is_loaded():
    code = (
        "import sys, resnet_edge.models.safety; "
        "sys.exit(', '.join({'keras', 'tensorflow', 'torch'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
