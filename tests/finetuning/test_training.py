"""The training loop: best weights, early end, resuming, divergence; pruning and clustering in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from resnet_edge.errors import ConversionFailedError, ModelRejectedError, UsageError
from resnet_edge.finetuning.bridge import to_tf_keras
from resnet_edge.finetuning.clustering import Clustered
from resnet_edge.finetuning.images import Stream
from resnet_edge.finetuning.layers import choose_layers
from resnet_edge.finetuning.losses import Objective
from resnet_edge.finetuning.options import FinetuneOptions
from resnet_edge.finetuning.progress import Epoch, Progress
from resnet_edge.finetuning.pruning import Pruned
from resnet_edge.finetuning.qat import FakeQuantized
from resnet_edge.finetuning.training import Trainer, be_deterministic
from resnet_edge.graph.execution import execute
from resnet_edge.graph.operators import Conv2D, Dense, Elementwise, Function
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.stages import Stages
from tests.finetuning import tiny
from tests.graph_builder import GraphBuilder
from tests.minmax import minmax


def weights(graph):
    return {node.name: node.op.weight for node in graph.nodes if isinstance(node.op, Conv2D | Dense)}


class StoppedError(Exception):
    """As Ctrl-C."""


class Recorder:
    """Remembers what is shown, and may stop the training there."""

    def __init__(self, *, stop_at=None):
        self.shown, self.steps, self._stop_at = [], [], stop_at

    def start(self, stage, total):
        self.shown.append(stage)

    def advance(self, stage, done):
        self.steps.append(done)
        if done == self._stop_at:
            raise StoppedError

    def finish(self, stage):
        pass


def trainer(student, state, *, recorder=None, validation=None, **settings):
    be_deterministic(0)
    options = FinetuneOptions(method="qat", data="tiny", batch=8, **{"epochs": 3, **settings})
    graph = tiny.graph()
    return Trainer(
        student=student,
        objective=Objective.of(options.loss, to_tf_keras(graph), graph),
        training=Stream(dataset=tiny.dataset(40), batch=8, seed=options.seed),
        validation=Stream(dataset=validation or tiny.dataset(12, seed=1), batch=8),
        options=options,
        stages=Stages(recorder),
        state=state / "state" / "state.npz",
    )


def fake_quantized(*, share=0.3):
    """The network with ranges that leave out most of what tensors hold: there is something to learn."""
    graph = tiny.graph()
    seen = minmax(graph, np.concatenate(list(tiny.dataset(4).batches())))
    ranges = {name: (low * share, high * share) for name, (low, high) in seen.ranges.items()}
    return FakeQuantized.of(quantize_graph(graph, RECIPES["int8"], replace(seen, ranges=ranges)))


def train(run):
    """The epochs of a training."""
    return run.run(run.untrained())


def constants(student):
    return {name: array.copy() for name, array in student.result().constants.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_training_brings_the_loss_down_and_shows_progress(tmp_path):
    student, recorder = fake_quantized(), Recorder()
    run = trainer(student, tmp_path, recorder=recorder, learning_rate=3e-3, epochs=4)
    before = run.untrained()
    epochs = run.run(before)
    assert min(epoch.validation_loss for epoch in epochs) < before.validation_loss
    assert recorder.steps == list(range(1, 21))
    assert recorder.shown[0] == "train 4 epochs"
    assert recorder.shown[1].startswith("epoch 1 of 4: loss ")
    assert "validation accuracy" in recorder.shown[1]


def test_the_best_weights_are_kept(tmp_path):
    student = fake_quantized()
    run = trainer(student, tmp_path, learning_rate=0.05, epochs=4, patience=9)
    epochs = train(run)
    best = min(epochs, key=lambda epoch: epoch.validation_loss)
    assert [epoch for epoch in epochs if epoch.best][-1] == best
    assert run.untrained().validation_loss == pytest.approx(best.validation_loss, rel=1e-6)


def test_a_model_that_training_makes_worse_stays_as_it_was(tmp_path):
    student = fake_quantized(share=1)
    before = constants(student)
    run = trainer(student, tmp_path, learning_rate=0.3, epochs=9, patience=2)
    epochs = train(run)
    assert len(epochs) == 2  # patience
    assert not any(each.best for each in epochs)
    assert_same(constants(student), before)


def test_the_same_seed_gives_the_same_integers(tmp_path):
    found = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        student = fake_quantized()
        train(trainer(student, tmp_path / place, learning_rate=0.01, epochs=1, seed=seed))
        found.append(constants(student))
    assert_same(found[0], found[1])
    assert any(not np.array_equal(found[0][name], found[2][name]) for name in found[0])


def test_an_interrupted_training_goes_on_to_the_same_end(tmp_path):
    whole = fake_quantized()
    epochs = train(trainer(whole, tmp_path / "whole", learning_rate=0.01))

    with pytest.raises(StoppedError):
        train(trainer(fake_quantized(), tmp_path / "cut", recorder=Recorder(stop_at=12), learning_rate=0.01))
    student, recorder = fake_quantized(), Recorder()
    assert train(trainer(student, tmp_path / "cut", recorder=recorder, learning_rate=0.01)) == epochs
    assert recorder.steps == [11, 12, 13, 14, 15]  # the two complete epochs of five steps are behind it
    assert_same(constants(student), constants(whole))


def test_an_interruption_in_the_first_epoch_leaves_nothing(tmp_path):
    with pytest.raises(StoppedError):
        train(trainer(fake_quantized(), tmp_path, recorder=Recorder(stop_at=3)))
    assert not list(tmp_path.iterdir())


def test_a_damaged_state_starts_over(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.npz").write_bytes(b"PK\x03\x04 damaged")
    recorder = Recorder()
    train(trainer(fake_quantized(), tmp_path, recorder=recorder, epochs=1))
    assert recorder.steps[0] == 1


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    with pytest.raises(ConversionFailedError, match="diverged") as caught:
        train(trainer(Pruned.of(tiny.graph(), ("second",), 0.5, steps=15), tmp_path, learning_rate=1e30))
    assert "epoch 1, step" in caught.value.where
    assert "--learning-rate" in caught.value.next_step


def epoch(number, loss):
    return Epoch(number=number, loss=1.0, validation_loss=loss, validation_accuracy=0.5, labelled=True)


def progress(losses, **settings):
    found = Progress()
    for number, loss in enumerate(losses, 1):
        eligible = number >= settings.get("first", 1)
        found = found.after(epoch(number, loss), [np.array(number)], eligible=eligible)
    return found


def test_training_ends_when_nothing_gets_better():
    assert not progress([3, 2, 2.5]).finished(10, patience=2)
    assert progress([3, 2, 2.5, 2.2]).finished(10, patience=2)
    assert progress([3, 2, 2.5, 2.2]).best == (np.array(2),)
    assert progress([3]).finished(1, patience=2)


def test_epochs_before_all_zeros_are_there_do_not_count():
    found = progress([1, 3, 2.5], first=2)
    assert found.best == (np.array(3),)
    assert not progress([1, 2, 3, 4], first=9).finished(10, patience=2)


def test_without_labels_the_float_prediction_is_the_right_one(tmp_path):
    validation = tiny.dataset(30, labelled=False)
    run = trainer(fake_quantized(share=1), tmp_path, validation=validation, epochs=1)
    (found,) = train(run)
    assert not found.labelled
    assert "agreement with float" in found.sentence(1)
    assert found.validation_accuracy > 0.6  # int8 of a float model agrees with it


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_pruning_leaves_the_zeros_asked_for(tmp_path, sparsity):
    graph = tiny.graph()
    student = Pruned.of(graph, ("second", "last"), sparsity, steps=15)
    run = trainer(student, tmp_path, learning_rate=0.01)
    epochs = train(run)
    found = weights(student.result())
    for name in ("second", "last"):
        # tfmot rounds the number of weights that are kept.
        assert np.mean(found[name] == 0) == pytest.approx(sparsity, abs=1 / found[name].size)
    assert not (found["first"] == 0).any()
    assert not epochs[0].best or sparsity == 0
    inputs = np.concatenate(list(tiny.dataset(5).batches()))
    # TensorFlow and NumPy add up float32 in another order.
    np.testing.assert_allclose(
        student.model(inputs, training=False).numpy(), execute(student.result(), inputs), rtol=0, atol=1e-5
    )


def test_pruning_goes_on_after_an_interruption(tmp_path):
    whole = Pruned.of(tiny.graph(), ("second",), 0.5, steps=15)
    train(trainer(whole, tmp_path / "whole", learning_rate=0.01))
    cut = Pruned.of(tiny.graph(), ("second",), 0.5, steps=15)
    with pytest.raises(StoppedError):
        train(trainer(cut, tmp_path / "cut", recorder=Recorder(stop_at=7), learning_rate=0.01))
    student = Pruned.of(tiny.graph(), ("second",), 0.5, steps=15)
    train(trainer(student, tmp_path / "cut", learning_rate=0.01))
    np.testing.assert_array_equal(weights(student.result())["second"], weights(whole.result())["second"])


def test_clustering_leaves_few_values(tmp_path):
    student = Clustered.of(tiny.graph(), ("second", "third"), 4)
    start = {name: weight.copy() for name, weight in weights(student.result()).items()}
    train(trainer(student, tmp_path, learning_rate=0.01))
    found = weights(student.result())
    assert len(np.unique(found["second"])) <= 4
    assert len(np.unique(found["third"])) <= 4
    assert len(np.unique(found["first"])) > 4
    assert not np.array_equal(np.unique(found["second"]), np.unique(start["second"]))
    inputs = np.concatenate(list(tiny.dataset(5).batches()))
    # As above.
    np.testing.assert_allclose(
        student.model(inputs, training=False).numpy(), execute(student.result(), inputs), rtol=0, atol=1e-5
    )


def test_clustering_keeps_the_zeros_of_pruning(tmp_path):
    pruned = Pruned.of(tiny.graph(), ("second",), 0.5, steps=5)
    train(trainer(pruned, tmp_path / "prune", epochs=1))
    graph = pruned.result()
    student = Clustered.of(graph, ("second",), 8, keep_zeros=True)
    train(trainer(student, tmp_path / "cluster", learning_rate=0.01))
    zero = weights(graph)["second"] == 0
    found = weights(student.result())["second"]
    assert not found[zero].any()
    assert len(np.unique(found)) <= 8


def test_a_layer_with_fewer_values_than_clusters_is_left_alone():
    student = Clustered.of(tiny.graph(), ("first", "second"), 100)
    assert set(student.wrappers) == {"second"}  # of 8 * 9 and 8 * 8 * 9 weights


def test_cross_entropy_follows_the_labels(tmp_path):
    student = fake_quantized()
    run = trainer(student, tmp_path, loss="cross-entropy", learning_rate=0.02, epochs=6)
    before = run.untrained()
    train(run)
    assert run.untrained().validation_loss < 0.97 * before.validation_loss


@pytest.mark.parametrize("function", [Function.SOFTMAX, Function.SIGMOID])
def test_the_loss_is_that_of_the_logits(function):
    graph = tiny.graph()
    nodes = (
        *graph.nodes,
        replace(graph.nodes[-1], name="end", op=Elementwise(function=function), inputs=("last",)),
    )
    graph = replace(graph, nodes=nodes, output="end")
    objective = Objective.of("distillation", to_tf_keras(graph), graph)
    inputs = np.concatenate(list(tiny.dataset(4).batches()))
    labels = np.array([0, 1, 2, -1])
    logits = objective.teacher(inputs)
    # The teacher is its own goal, up to float32.
    assert float(objective.value(inputs, labels, logits)) == pytest.approx(0, abs=1e-6)
    assert float(objective.value(inputs, labels, 2 * logits)) > 1e-3
    assert objective.independent == (function is Function.SIGMOID)


def test_layers_by_pattern():
    graph = tiny.graph()
    assert choose_layers(graph, (), keep_ends=False) == ("first", "second", "third", "last")
    assert choose_layers(graph, (), keep_ends=True) == ("second", "third")
    assert choose_layers(graph, ("f*", "last"), keep_ends=True) == ("first", "last")
    with pytest.raises(UsageError, match="'conv9' matches no layer"):
        choose_layers(graph, ("conv9",), keep_ends=False)


def test_a_network_without_inner_layers_cannot_be_clustered():
    builder = GraphBuilder((4, 4, 1))
    graph = builder.classified(builder.image)
    with pytest.raises(ModelRejectedError, match="no layer to work on"):
        choose_layers(graph, (), keep_ends=True)
