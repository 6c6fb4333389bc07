"""The steps of a quantization, in the order in which the pipeline takes them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resnet_edge import bundle as bundles
from resnet_edge.contents import artifact_contract, full_contract, load_folded, load_imported
from resnet_edge.errors import DataRejectedError, ModelRejectedError, UsageError
from resnet_edge.manifest import ArtifactRecord, HeldBackRecord, Manifest
from resnet_edge.memory import give_back
from resnet_edge.quantized_writing import QuantizedWriter, load_ahead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from resnet_edge.data.datasets import Dataset
    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.graph import Graph
    from resnet_edge.pipeline import QuantizeOptions
    from resnet_edge.quantization.input_moments import InputMoments
    from resnet_edge.quantization.parity import Judge
    from resnet_edge.quantization.recipes import Recipe
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.quantization.statistics import Statistics
    from resnet_edge.stages import Stages

HELD_BACK = 256
"""Images behind the calibration images that are kept for the closing parity run, at most."""

SMALL_COVARIANCES = 128 * 2**20
"""Bytes of the layers' input covariances up to which learned rounding is the default: a matter of seconds."""

HELD_BACK_NAME = "held-back.npz"

STATISTICS_NAME = "calibration-{key}.npz"


def choose_recipes(options: QuantizeOptions) -> tuple[Recipe, ...]:
    """The recipes asked for, each checked against the formats and the input type asked for.

    Raises:
        UsageError: A recipe is unknown, or does not go with a format or with ``--io``.
    """
    from resnet_edge.quantization.recipes import find_recipe, load_recipes

    known = load_recipes(options.recipe_file)
    recipes = tuple(find_recipe(name, known) for name in dict.fromkeys(options.recipes))
    if options.bias_correction is not None:
        recipes = tuple(replace(recipe, bias_correction=options.bias_correction) for recipe in recipes)
    for recipe in recipes:
        recipe.check_io(options.io)
        for name in options.formats:
            if name != "all":
                recipe.check_format(name)
    return recipes


def choose_calibration(
    recipes: Sequence[Recipe], options: QuantizeOptions, weights: str | None
) -> str | None:
    """Where the images come from: the user's choice, or the shipped set for the shipped weights.

    Raises:
        UsageError: An integer recipe without images.
    """
    if options.calibration is not None or weights == "fashion-mnist":
        return options.calibration or weights
    needing = [f"recipe {recipe.name!r}" for recipe in recipes if recipe.integer]
    if options.rounding == "learned":
        needing.append("learned rounding")
    if needing:
        raise UsageError(
            f"{needing[0]} needs calibration images",
            where="--calibration",
            allowed="a .npz with images, a folder with one sub-folder a class, or fashion-mnist",
            next_step="pass a few hundred images like those that the model will see",
        )
    return None


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A float graph, and what images showed about it; several recipes share it.

    Attributes:
        graph: The folded graph, perhaps equalized.
        statistics: Ranges of its tensors; None without images.
        moments: Means and covariances of its layers' inputs, for learned rounding; None for nearest.
    """

    graph: Graph
    statistics: Statistics | None = None
    moments: Mapping[str, InputMoments] | None = None


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Quantizes the model of one bundle in the making.

    Attributes:
        folder: The bundle.
        manifest: What it holds so far.
        options: What the user asked for.
        stages: Times the work.
    """

    folder: Path
    manifest: Manifest
    options: QuantizeOptions
    stages: Stages

    def run(self, recipes: Sequence[Recipe], calibration: str | None) -> Manifest:
        """Add the artifacts of every recipe; one calibration serves them all."""
        from resnet_edge.quantization.overrides import resolve

        with self.stages.stage("load the graph"):
            imported = load_imported(self.folder, self.manifest)
            graph = load_folded(self.folder, self.manifest, imported)
            self._check_clusters(recipes)
            resolve(self.options.overrides, graph)  # a typo is to cost no calibration
        writer = QuantizedWriter(
            folder=self.folder,
            manifest=self.manifest,
            formats=self.options.formats,
            onnx_activations=self.options.onnx_activations,
            stages=self.stages,
        )
        converters = {recipe.name: writer.choose_converters(recipe) for recipe in recipes}
        contract = artifact_contract(self.manifest)
        dataset = None if calibration is None else self._dataset(calibration, contract)
        notes = () if dataset is None else self._notes(imported, dataset)
        del imported  # another set of weights
        judge = self._judge(graph, dataset, contract)
        held_back = self.manifest.held_back if dataset is None else self._hold_back(dataset)
        observed: dict[tuple[bool, bool], Observed] = {}
        added: list[ArtifactRecord] = []
        for recipe in recipes:
            equalized = (recipe.equalize, recipe.equalize_activations)
            if equalized not in observed:
                observed[equalized] = self._observe(graph, dataset, recipe)
            give_back()
            load_ahead(converters[recipe.name])  # not before: calibration needs the memory
            with self.stages.stage(f"quantize {recipe.name}"):
                quantized = self._quantized(recipe, observed[equalized])
                plan = writer.keep(quantized, recipe, graph)
            give_back()
            added += writer.write(plan, converters[recipe.name], judge)
        replaced = {recipe.name for recipe in recipes}
        return replace(
            self.manifest,
            finetuned=tuple(each for each in self.manifest.finetuned if each.recipe not in replaced),
            artifacts=(*writer.still_valid(added), *added),
            held_back=held_back,
            calibration_notes=notes,
        )

    def _check_clusters(self, recipes: Sequence[Recipe]) -> None:
        """Refuse what would give a clustered layer more distinct weights.

        Raises:
            UsageError: Channels are to be balanced, or weights to be rounded each in its own way.
        """
        balancing = [f"recipe {recipe.name!r} balances channels" for recipe in recipes if recipe.equalize]
        learning = (
            ["learned rounding rounds equal weights apart"] if self.options.rounding == "learned" else []
        )
        if self._clustered and (balancing or learning):
            raise UsageError(
                "the bundle's weights are clustered, and would not stay so",
                found=(*balancing, *learning)[0],
                allowed="recipes without equalize, and --rounding nearest",
                next_step="int8 fits; for one scale a tensor give a recipe of your own with base = "
                '"int8-per-tensor" and equalize = false',
            )

    @property
    def _clustered(self) -> bool:
        return self.manifest.was("cluster")

    def _dataset(self, calibration: str, contract: Preprocessing) -> Dataset:
        from resnet_edge.data.datasets import open_dataset

        with self.stages.stage("open the images"):
            dataset = open_dataset(calibration, contract)
            dataset.check_size(self.options.samples)
            return dataset

    def _notes(self, imported: Graph, dataset: Dataset) -> tuple[str, ...]:
        """What the user should know about the images."""
        from resnet_edge.quantization.parity import shortage

        return (*dataset.notes, *self._examine(imported, dataset), *shortage(dataset, self.options.samples))

    def _examine(self, imported: Graph, dataset: Dataset) -> list[str]:
        """The preprocessing doctor's finding, as a warning, or as an error with ``--strict``."""
        from resnet_edge.quantization.doctor import IMAGES, examine

        with self.stages.stage("examine the preprocessing"):
            count = min(self.options.samples, IMAGES)
            (images,) = dataset.batches(0, count, count)
            if self.manifest.fold_input:
                images = full_contract(self.manifest).apply(images.astype("uint8"))
            diagnosis = examine(imported, images, full_contract(self.manifest))
        if not diagnosis.message:
            return []
        if self.options.strict:
            raise DataRejectedError(
                "the calibration images do not look like what the model was trained on",
                where="--calibration",
                found=diagnosis.message,
                next_step="correct --preprocess or the images; without --strict this is a warning",
            )
        return [diagnosis.message]

    def _statistics(self, graph: Graph, dataset: Dataset) -> Statistics:
        """What calibration saw, from the bundle if the same was seen before."""
        from resnet_edge.quantization.calibration import calibrate
        from resnet_edge.quantization.statistics import Statistics, statistics_key

        count = self.options.samples
        key = statistics_key(graph, dataset.digest(0, count), self.options.observer)
        path = self.folder / STATISTICS_NAME.format(key=key[:16])
        if path.exists():
            with contextlib.suppress(ModelRejectedError):  # damaged: see the images again
                return Statistics.load(path)
        with self.stages.stage(f"calibrate on {count} images", total=count) as done:
            batches = dataset.batches(0, count, 16)
            statistics = calibrate(graph, batches, observer=self.options.observer, progress=done)
        bundles.remove(path)
        statistics.save(path)
        return statistics

    def _judge(self, graph: Graph, dataset: Dataset | None, contract: Preprocessing) -> Judge:
        from resnet_edge.quantization.parity import Judge

        with self.stages.stage("run the float model"):
            judge = Judge.over(graph, dataset, self.options.samples, HELD_BACK, contract)
        give_back()
        return judge

    def _hold_back(self, dataset: Dataset) -> HeldBackRecord:
        """Keep what ``verify`` needs where no other images are at hand."""
        from resnet_edge.data.held_back import save_held_back

        path = self.folder / HELD_BACK_NAME
        bundles.remove(path)
        count = save_held_back(dataset, path, calibrated=self.options.samples, most=HELD_BACK)
        return HeldBackRecord(path=path.name, source=dataset.name, images=count, sha256=bundles.digest(path))

    def _observe(self, graph: Graph, dataset: Dataset | None, recipe: Recipe) -> Observed:
        """Send the images through the graph; an equalized one has ranges of its own."""
        from resnet_edge.quantization.equalization import equalize
        from resnet_edge.quantization.input_moments import covariance_bytes, measure

        graph = equalize(graph) if recipe.equalize else graph
        if dataset is None:
            return Observed(graph=graph)
        small = covariance_bytes(graph) <= SMALL_COVARIANCES
        if recipe.equalize_activations and small and not self._clustered:
            graph = self._equalize_activations(graph, dataset)
        statistics = self._statistics(graph, dataset)
        default = "learned" if small and not self._clustered else "nearest"
        if (self.options.rounding or default) == "nearest":
            return Observed(graph=graph, statistics=statistics)
        with self.stages.stage("measure the layers' inputs"):
            moments = measure(graph, dataset.batches(0, self.options.samples, 16))
        return Observed(graph=graph, statistics=statistics, moments=moments)

    def _equalize_activations(self, graph: Graph, dataset: Dataset) -> Graph:
        from resnet_edge.quantization.activation_equalization import channel_magnitudes, equalize_activations

        with self.stages.stage("equalize the activations"):
            magnitudes = channel_magnitudes(graph, dataset.batches(0, self.options.samples, 16))
            return equalize_activations(graph, magnitudes)

    def _quantized(self, recipe: Recipe, observed: Observed) -> Quantized:
        """Decide every integer of a recipe."""
        from resnet_edge.quantization.quantize import quantize_graph

        return quantize_graph(
            observed.graph,
            recipe,
            observed.statistics,
            io=self.options.io,
            overrides=self.options.overrides,
            input_range=(0.0, 255.0) if self.manifest.fold_input else None,
            moments=observed.moments,
        )
