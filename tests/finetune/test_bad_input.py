"""``resnet-edge finetune``: what users get wrong, and interruptions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from resnet_edge.finetuning.options import FinetuneOptions
from resnet_edge.pipeline import ExportOptions, export, finetune
from resnet_edge.stages import Stages
from tests.command_line import run

USAGE, REJECTED, FAILED = 2, 3, 5


def attempt(capsys, bundle, tmp_path, *arguments, data):
    result = run(
        capsys, "finetune", bundle, "--epochs", 1, "--data", data, *arguments, "-o", tmp_path / "new"
    )
    assert not (tmp_path / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    return result


def test_a_bundle_without_an_integer_recipe(base, few, tmp_path, capsys):
    bundle = tmp_path / "plain"
    export("resnet8", bundle, ExportOptions(weights="fashion-mnist", formats=("tflite",)))
    result = attempt(capsys, bundle, tmp_path, "--method", "qat", data=few)
    assert result.code == USAGE
    assert "no such integer recipe" in result.err
    assert "resnet-edge quantize" in result.err


def test_a_recipe_that_the_bundle_has_not(base, few, tmp_path, capsys):
    result = attempt(capsys, base, tmp_path, "--method", "qat", "--recipe", "int4", data=few)
    assert result.code == USAGE
    assert "int4" in result.err
    assert "allowed: int8" in result.err


def test_no_labels_where_the_loss_needs_them(base, tmp_path, capsys):
    data = tmp_path / "data.npz"
    np.savez(data, images=np.zeros((80, 28, 28, 1), np.uint8))
    result = attempt(capsys, base, tmp_path, "--method", "qat", "--loss", "cross-entropy", data=data)
    assert result.code == REJECTED
    assert "no labels" in result.err


def test_classes_that_do_not_match(base, tmp_path, capsys):
    data = tmp_path / "data.npz"
    np.savez(data, images=np.zeros((80, 28, 28, 1), np.uint8), labels=np.arange(80))
    result = attempt(capsys, base, tmp_path, "--method", "qat", data=data)
    assert result.code == REJECTED
    assert "no class of the model" in result.err


@pytest.mark.parametrize("count", [0, 1, 20])
def test_empty_or_tiny_data(base, tmp_path, capsys, count):
    data = tmp_path / "data.npz"
    np.savez(data, images=np.zeros((count, 28, 28, 1), np.uint8))
    assert attempt(capsys, base, tmp_path, "--method", "qat", data=data).code == REJECTED


def test_an_operator_that_cannot_be_trained_through_is_named(tmp_path, few, capsys):
    import keras

    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(4, 3, activation="tanh", name="curved")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(10)(x))
    bundle = tmp_path / "curved"
    export(model, bundle, ExportOptions(formats=("tflite",), preprocess="unit"))
    result = attempt(capsys, bundle, tmp_path, "--method", "prune", "--sparsity", 0.5, data=few)
    assert result.code == REJECTED
    assert "tanh" in result.err
    assert "curved" in result.err


@pytest.mark.parametrize("sparsity", ["1", "-0.1", "nan"])
def test_a_sparsity_outside_its_range(base, few, tmp_path, capsys, sparsity):
    result = attempt(capsys, base, tmp_path, "--method", "prune", "--sparsity", sparsity, data=few)
    assert result.code == USAGE
    assert "--sparsity" in result.err


def test_a_pattern_that_matches_nothing(base, few, tmp_path, capsys):
    settings = ("--method", "prune", "--sparsity", 0.5, "--layers", "conv99*")
    result = attempt(capsys, base, tmp_path, *settings, data=few)
    assert result.code == USAGE
    assert "'conv99*' matches no layer" in result.err


def test_a_rate_that_makes_training_diverge(base, few, tmp_path, capsys):
    settings = ("--method", "prune", "--sparsity", 0.5, "--learning-rate", 1e30, "--json")
    result = attempt(capsys, base, tmp_path, *settings, data=few)
    assert result.code == FAILED
    assert json.loads(result.out)["error"]["what"] == "the training has diverged"


def test_no_bundle(few, tmp_path, capsys):
    result = attempt(capsys, tmp_path, tmp_path, "--method", "qat", data=few)
    assert result.code == REJECTED
    assert "not a bundle" in result.err


def test_a_bundle_without_its_spec(base, few, tmp_path, capsys):
    bundle = shutil.copytree(base, tmp_path / "bundle")
    (bundle / "resnet8-int8.spec.json").unlink()
    result = attempt(capsys, bundle, tmp_path, "--method", "qat", data=few)
    assert result.code == REJECTED
    assert "resnet8-int8.spec.json" in result.err


def test_the_same_folder_for_both(base, few, capsys):
    result = run(capsys, "finetune", base, "--epochs", 1, "--data", few, "--method", "qat", "-o", base)
    assert result.code == USAGE
    assert "makes a new bundle" in result.err


class Interrupting:
    """Shows nothing, and sends Ctrl-C at a step."""

    def __init__(self, step):
        self.steps, self._step = [], step

    def start(self, stage, total):
        pass

    def advance(self, stage, done):
        self.steps.append(done)
        if done == self._step:
            raise KeyboardInterrupt

    def finish(self, stage):
        pass


def pruning(few, epochs):
    return FinetuneOptions(method="prune", sparsity=0.5, data=str(few), epochs=epochs, batch=96)


def test_interrupted_in_the_first_epoch_nothing_is_left_behind(base, few, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        finetune(base, tmp_path / "new", pruning(few, 1), Stages(Interrupting(2)))
    assert not list(tmp_path.iterdir())


def test_interrupted_later_the_same_call_goes_on(base, few, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        finetune(base, tmp_path / "new", pruning(few, 2), Stages(Interrupting(5)))
    assert [path.name.startswith(".new.training-") for path in tmp_path.iterdir()] == [True]
    display = Interrupting(None)
    finetune(base, tmp_path / "new", pruning(few, 2), Stages(display))
    assert display.steps[0] == 4  # three steps an epoch
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_ctrl_c_tells_that_the_command_goes_on(base, few, tmp_path, capsys, monkeypatch):
    from resnet_edge.finetuning.training import Trainer

    whole = Trainer.run

    def stopped(trainer, before):
        whole(trainer, before)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", stopped)
    settings = ("--method", "prune", "--sparsity", 0.5, "--data", few, "--epochs", 1)
    result = run(capsys, "finetune", base, *settings, "-o", tmp_path / "new")
    assert result.code == 130
    assert "the same command will go on" in result.err
