"""Model files become Keras models: of every kind that is safe, and no other."""

from __future__ import annotations

import errno
import hashlib
import shutil
import sys
import warnings
import zipfile
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

from resnet_edge.errors import ConversionFailedError, ModelRejectedError, UnsafeFileError
from resnet_edge.graph.importing.functions import FUNCTIONS
from resnet_edge.graph.importing.layers import LAYERS
from resnet_edge.models.loading import load_model_file
from resnet_edge.models.safety.classes import LAYERS as KNOWN_LAYERS
from resnet_edge.models.safety.classes import OPERATIONS
from tests.models.attacks import ATTACKS
from tests.models.model_files import WEIGHTS, archive, hdf5
from tests.shared_data import shared_file
from tests.traps import TRAPS, image

TOLERANCE = 1e-6
"""On outputs of order 1: the same float32 kernels on the same weights, at most fused differently."""


def small_model(name="net", **options):
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3), name="pixels")
    y = layers.Conv2D(4, 3, activation="relu", name="conv", **options)(x)
    y = layers.BatchNormalization(name="norm", **options)(y)
    y = layers.GlobalAveragePooling2D(name="pool", **options)(y)
    return keras.Model(x, layers.Dense(3, name="head", **options)(y), name=name)


def saved(model, path):
    model.save(path)
    return path


def pixels(shape=(8, 8, 3), count=2):
    return np.random.default_rng(0).uniform(0, 1, (count, *shape)).astype(np.float32)


def assert_same(loaded, model, images=None):
    images = pixels(model.input_shape[1:]) if images is None else images
    expected, found = (np.asarray(m(images, training=False), np.float64) for m in (model, loaded))
    assert np.abs(found - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max())


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


class TestFiles:
    @pytest.mark.parametrize("place", ["zipfile.ZipFile.extract", "shutil.copyfileobj"])
    def test_a_full_disk_of_temporary_files_is_not_blamed_on_the_model(self, place, tmp_path, monkeypatch):
        whole = saved(small_model(), tmp_path / "whole.keras")
        packed = tmp_path / "packed.keras"  # compressed weights are unpacked to be checked
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        monkeypatch.setattr(place, no_space)
        with pytest.raises(ConversionFailedError, match="no room for temporary files"):
            load_model_file(packed)

    @pytest.mark.parametrize("suffix", ["keras", "h5", "hdf5"])
    def test_formats(self, suffix, tmp_path):
        model = small_model()
        path = saved(model, tmp_path / f"model.{suffix}")
        loaded = load_model_file(path)
        assert_same(loaded.model, model)
        assert loaded.format == ("keras" if suffix == "keras" else "h5")
        assert loaded.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert loaded.custom_objects_digest is None
        assert not loaded.needs_code
        assert [layer.name for layer in loaded.model.layers] == [layer.name for layer in model.layers]

    def test_trained_model_of_keras_2(self):
        path = shared_file("mlperf_tiny_resnet8.h5")
        assert_same(load_model_file(path).model, keras.saving.load_model(path, compile=False))

    def test_recompressed_archive(self, tmp_path):
        model = small_model()
        path = saved(model, tmp_path / "model.keras")
        with zipfile.ZipFile(path) as stored, zipfile.ZipFile(tmp_path / "small.keras", "w") as packed:
            for entry in stored.infolist():
                packed.writestr(entry.filename, stored.read(entry), zipfile.ZIP_DEFLATED)
        assert_same(load_model_file(tmp_path / "small.keras").model, model)

    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_compiled_models_within_models_stay_uncompiled(self, suffix, tmp_path):
        inner = keras.Sequential([image(8, 8), layers.Flatten(), layers.Dense(3)], name="inner")
        inner.compile(keras.optimizers.Adam(), keras.losses.MeanSquaredError(), metrics=["accuracy"])
        x = image(8, 8)
        model = keras.Model(x, layers.Softmax()(inner(x)))
        model.compile("sgd", "categorical_crossentropy")
        loaded = load_model_file(saved(model, tmp_path / f"model.{suffix}")).model
        assert_same(loaded, model)
        assert not loaded.compiled
        assert not loaded.get_layer("inner").compiled

    @pytest.mark.parametrize("policy", ["float64", "mixed_float16"])
    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_precisions(self, policy, suffix, tmp_path):
        model = small_model(dtype=policy)
        loaded = load_model_file(saved(model, tmp_path / f"model.{suffix}")).model
        assert loaded.get_layer("conv").dtype_policy.name == policy
        assert_same(loaded, model)

    def test_names_with_spaces_and_letters(self, tmp_path):
        model = small_model("Mein schönes Netz")
        assert load_model_file(saved(model, tmp_path / "my model ü.keras")).model.name == "Mein schönes Netz"

    def test_open_input_size_is_closed(self, tmp_path):
        x = keras.Input((None, None, 3))
        model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))))
        path = saved(model, tmp_path / "open.keras")
        assert load_model_file(path).model.input_shape == (None, None, None, 3)
        loaded = load_model_file(path, input_shape=(12, 9, 3)).model
        assert loaded.input_shape == (None, 12, 9, 3)
        assert_same(loaded, model, pixels((12, 9, 3)))
        assert load_model_file(path, input_shape=(12, 9, 1)).model.input_shape == (None, 12, 9, 3)
        with pytest.raises(ModelRejectedError, match="Keras cannot load"):
            load_model_file(path, input_shape=(2, 2, 3))  # too small for the kernel


@pytest.fixture(scope="module")
def traps_code(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "my_layers.py"
    path.write_text("from tests.traps import *\n")
    return path


@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_comes_back(name, tmp_path, traps_code):
    model = TRAPS[name]()
    path = saved(model, tmp_path / "model.keras")
    loaded = load_model_file(path, custom_objects=traps_code)
    shape = (16, 16, 3) if name == "subclassed_model" else model.input_shape[1:]
    shape = tuple(extent or 16 for extent in shape)
    assert_same(loaded.model, model, pixels(shape))
    if not loaded.needs_code:
        load_model_file(path)  # does not raise


class TestAttacks:
    @pytest.fixture
    def keras_untouched(self, monkeypatch):
        """Keras must not get to see a file, nor any part of it."""

        def touched(*arguments, **options):
            pytest.fail("Keras was asked to build what the check should have refused")

        monkeypatch.setattr(keras.saving, "deserialize_keras_object", touched)
        monkeypatch.setattr(keras.saving, "load_model", touched)
        monkeypatch.setattr(keras.Model, "load_weights", touched)

    @pytest.mark.usefixtures("keras_untouched")
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize("name", ATTACKS)
    def test_is_refused_before_keras(self, name, tmp_path):
        canary = tmp_path / "canary"
        path = ATTACKS[name](tmp_path, canary)
        with pytest.raises(ModelRejectedError):
            load_model_file(path)
        assert not canary.exists()

    @pytest.mark.parametrize("write", [archive, hdf5])
    def test_the_model_behind_them_loads(self, write, tmp_path):
        assert load_model_file(write(tmp_path)).model.output_shape == (None, 3)

    @pytest.mark.parametrize("name", ["lambda_in_archive", "lambda_in_hdf5"])
    def test_payload_is_real(self, name, tmp_path):
        """Where the user allows it, the same files do create the canary: the attacks above are no dummies."""
        canary = tmp_path / "canary"
        loaded = load_model_file(ATTACKS[name](tmp_path, canary), allow_unsafe_code=True)
        assert canary.exists()
        assert loaded.needs_code

    def test_lambda_saved_by_keras(self, tmp_path):
        model = keras.Sequential(
            [image(4, 4), layers.Lambda(lambda x: x * 2, name="twice"), layers.Flatten()]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Keras' own about lambdas
            path = saved(model, tmp_path / "model.keras")
        with pytest.raises(UnsafeFileError, match="'twice'"):
            load_model_file(path)
        assert_same(load_model_file(path, allow_unsafe_code=True).model, model)


CODE = '''
import keras

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

class Plain(keras.layers.Layer):
    def call(self, x):
        return x + 1

@keras.saving.register_keras_serializable("mine")
class Flatten(keras.layers.Layer):
    """Of the same name as Keras' own."""
    def call(self, x):
        return x

def negative(x):
    return -x
'''


class TestCustomObjects:
    @pytest.fixture
    def code(self, tmp_path):
        path = tmp_path / "layers.py"
        path.write_text(CODE)
        return path

    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_classes_and_functions(self, suffix, code, tmp_path):
        own: dict[str, Any] = {"__name__": "elsewhere"}
        exec(CODE, own)
        parts = [own["Twice"](), own["Plain"](), own["Flatten"](), layers.Activation(own["negative"])]
        model = keras.Sequential([image(4, 4), *parts, layers.Flatten()])
        path = saved(model, tmp_path / f"model.{suffix}")
        for name in [name for name in keras.saving.get_custom_objects() if name.startswith("mine>")]:
            del keras.saving.get_custom_objects()[name]  # as in the user's next process
        with pytest.raises(ModelRejectedError, match="--custom-objects"):
            load_model_file(path)
        loaded = load_model_file(path, custom_objects=code)
        assert loaded.needs_code
        assert loaded.custom_objects_digest == hashlib.sha256(code.read_bytes()).hexdigest()
        images = pixels((4, 4, 3))
        expected = -(2 * images + 1).reshape(2, -1)
        assert np.abs(np.asarray(loaded.model(images)) - expected).max() <= TOLERANCE

    def test_model_that_does_not_need_them(self, code, tmp_path):
        loaded = load_model_file(saved(small_model(), tmp_path / "model.keras"), custom_objects=code)
        assert not loaded.needs_code

    def test_code_runs_once_a_process(self, code, tmp_path):
        code.write_text(CODE + f"\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')\n")
        path = saved(small_model(), tmp_path / "model.keras")
        for _ in range(2):
            load_model_file(path, custom_objects=code)
        assert (tmp_path / "runs").read_text() == "x"
        assert not (tmp_path / "__pycache__").exists()

    @pytest.mark.parametrize(
        ("text", "found", "line"),
        [
            ("import keras\nimport no_such_module_at_all\n", "ModuleNotFoundError", 2),
            ("def broken(:\n", "SyntaxError", 1),
            ("import sys\n\nsys.exit('enough')\n", "SystemExit: enough", 3),
            ("def f():\n    return 1 / 0\n\nf()\n", "ZeroDivisionError", 2),
        ],
    )
    def test_code_that_fails(self, text, found, line, code, tmp_path):
        code.write_text(text)
        with pytest.raises(ModelRejectedError) as caught:
            load_model_file(saved(small_model(), tmp_path / "model.keras"), custom_objects=code)
        assert found in caught.value.found
        assert caught.value.where == f"{code}, line {line}"
        digest = hashlib.sha256(code.read_bytes()).hexdigest()
        assert not [name for name in sys.modules if digest[:16] in name]

    def test_missing_file(self, tmp_path):
        with pytest.raises(ModelRejectedError, match="custom objects cannot be read"):
            load_model_file(saved(small_model(), tmp_path / "m.keras"), custom_objects=tmp_path / "none.py")


class TestRejected:
    @pytest.mark.parametrize(
        ("name", "way_out"),
        [
            ("missing.keras", "check the path"),
            ("weights.pt", "--weights"),
            ("weights.safetensors", "--weights"),
            ("model.onnx", "exported from"),
            ("model.tflite", "exported from"),
            ("model.xyz", "model.save"),
        ],
    )
    def test_names(self, name, way_out, tmp_path):
        path = tmp_path / name
        if not name.startswith("missing"):
            path.write_bytes(b"something")
        with pytest.raises(ModelRejectedError) as caught:
            load_model_file(path)
        assert way_out in caught.value.next_step

    def test_folders(self, tmp_path):
        with pytest.raises(ModelRejectedError, match="a folder"):
            load_model_file(tmp_path)
        (tmp_path / "saved_model.pb").touch()
        with pytest.raises(ModelRejectedError, match="a SavedModel") as caught:
            load_model_file(tmp_path)
        assert ".keras" in caught.value.next_step

    def test_weights_alone(self, tmp_path):
        path = tmp_path / "net.weights.h5"
        small_model().save_weights(path)
        with pytest.raises(ModelRejectedError, match="weights but no model") as caught:
            load_model_file(path)
        assert "--weights" in caught.value.next_step

    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_truncated(self, suffix, tmp_path):
        path = saved(small_model(), tmp_path / f"model.{suffix}")
        content = path.read_bytes()
        for length in (0, 7, 100, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(ModelRejectedError):
                load_model_file(path)

    def test_weights_that_do_not_match_their_check_sum(self, tmp_path):
        """One wrong bit in a weight leaves a model that loads and works, a little wrong."""
        path = saved(small_model(), tmp_path / "model.keras")
        content = bytearray(path.read_bytes())
        kernel = np.asarray(keras.saving.load_model(path).get_layer("conv").kernel).tobytes()
        content[content.index(kernel) + 1] ^= 1
        path.write_bytes(content)
        with pytest.raises(ModelRejectedError, match="cannot be read") as caught:
            load_model_file(path)
        assert WEIGHTS in caught.value.found

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_weights_that_are_not_finite(self, value, suffix, tmp_path):
        model = small_model()
        model.get_layer("norm").moving_variance.assign([1.0, value, 1.0, 1.0])
        with pytest.raises(ModelRejectedError, match="NaN or infinite") as caught:
            load_model_file(saved(model, tmp_path / f"model.{suffix}"))
        assert caught.value.found == "norm/moving_variance"

    def test_weights_of_another_shape(self, tmp_path):
        path = saved(small_model(), tmp_path / "model.h5")
        with h5py.File(path, "r+") as file:
            head = file["model_weights/head"]
            names = [name for name in list(head) if isinstance(head[name], h5py.Group)]
            kernel = head[names[0]]["head/kernel"] if "head" in head[names[0]] else head[names[0]]["kernel"]
            data, place, name = kernel[()], kernel.parent, kernel.name.split("/")[-1]
            del place[name]
            place[name] = data[:-1]
        with pytest.raises(ModelRejectedError, match="Keras cannot load") as caught:
            load_model_file(path)
        assert "hape" in caught.value.found
        assert len(caught.value.found) < 400
        assert "\n" not in caught.value.found

    def test_weights_that_keras_would_leave_out(self, tmp_path, traps_code):
        """Keras warns of weights that are missing in nested lists, and goes on with random ones."""
        code = tmp_path / "nested.py"
        code.write_text(
            "import keras\n"
            "class Nested(keras.layers.Layer):\n"
            "    def build(self, shape):\n"
            "        self.parts = [[keras.layers.Conv2D(3, 1)]]\n"
            "        self.parts[0][0].build(shape)\n"
            "    def call(self, x):\n"
            "        return self.parts[0][0](x)\n"
        )
        own: dict[str, Any] = {"__name__": "elsewhere"}
        exec(code.read_text(), own)
        model = keras.Sequential([image(4, 4), own["Nested"](name="nested"), layers.Flatten()])
        path = saved(model, tmp_path / "model.keras")
        assert_same(load_model_file(path, custom_objects=code).model, model)
        unpacked = tmp_path / "unpacked"
        shutil.unpack_archive(path, unpacked, "zip")
        with h5py.File(unpacked / WEIGHTS, "r+") as file:
            del file["layers/nested/parts/container"]
        shutil.make_archive(str(tmp_path / "model"), "zip", unpacked)
        (tmp_path / "model.zip").rename(path)
        with pytest.raises(ModelRejectedError, match="Skipping nested container"):
            load_model_file(path, custom_objects=code)

    def test_operations_in_hdf5(self, tmp_path):
        x = image(4, 4)
        path = saved(keras.Model(x, layers.Flatten()(ops.relu6(x))), tmp_path / "model.h5")
        with pytest.raises(ModelRejectedError, match="which an HDF5 file cannot restore"):
            load_model_file(path)


def test_the_closed_set_is_what_the_import_translates():
    """Each has its own table, so that neither can be widened by the way; Lambda takes the user's word."""
    assert frozenset(LAYERS) - {"Lambda"} == KNOWN_LAYERS
    assert frozenset(FUNCTIONS) == frozenset().union(*OPERATIONS.values())


def test_known_operations_exist_where_they_are_said_to():
    import importlib

    for module, names in OPERATIONS.items():
        missing = [name for name in names if not hasattr(importlib.import_module(module), name)]
        assert not missing, module
