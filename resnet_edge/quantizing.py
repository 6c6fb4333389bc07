"""The steps of a quantization, in the order in which the pipeline takes them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resnet_edge import bundle as bundles
from resnet_edge.contents import artifact_contract, fold, full_contract, load_imported
from resnet_edge.converters import ConversionSettings, QuantizingConverter, load_converter
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import DataRejectedError, ModelRejectedError, UsageError
from resnet_edge.manifest import ArtifactRecord, HeldBackRecord, Manifest
from resnet_edge.memory import give_back

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
class Plan:
    """What every format of a recipe is written from.

    Attributes:
        quantized: The graph, its spec and its integers.
        spec: The file with the spec.
        integers: The file with the integers.
    """

    quantized: Quantized
    spec: Path
    integers: Path


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
            graph = fold(imported, self.manifest)
            resolve(self.options.overrides, graph)  # a typo is to cost no calibration
        converters = {recipe.name: self._converters(recipe) for recipe in recipes}
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
            with self.stages.stage(f"quantize {recipe.name}"):
                plan = self._plan(recipe, observed[equalized], graph)
            give_back()
            added += [
                self._write(name, to, recipe, plan, judge) for name, to in converters[recipe.name].items()
            ]
        kept = self._still_valid(added)
        return replace(self.manifest, artifacts=(*kept, *added), held_back=held_back, calibration_notes=notes)

    def _still_valid(self, added: Sequence[ArtifactRecord]) -> list[ArtifactRecord]:
        """The bundle's artifacts but for those replaced, and those of integers that are no longer there."""
        paths = {artifact.path for artifact in added}
        integers = {artifact.spec: (artifact.spec_sha256, artifact.integers_sha256) for artifact in added}
        kept = []
        for artifact in self.manifest.artifacts:
            if artifact.path in paths:
                continue
            own = (artifact.spec_sha256, artifact.integers_sha256)
            if integers.get(artifact.spec, own) == own:
                kept.append(artifact)
            else:  # other integers under the same recipe's name
                bundles.remove(self.folder / artifact.path)
        return kept

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
        if recipe.equalize_activations and small:
            graph = self._equalize_activations(graph, dataset)
        statistics = self._statistics(graph, dataset)
        if (self.options.rounding or ("learned" if small else "nearest")) == "nearest":
            return Observed(graph=graph, statistics=statistics)
        with self.stages.stage("measure the layers' inputs"):
            moments = measure(graph, dataset.batches(0, self.options.samples, 16))
        return Observed(graph=graph, statistics=statistics, moments=moments)

    def _equalize_activations(self, graph: Graph, dataset: Dataset) -> Graph:
        from resnet_edge.quantization.activation_equalization import channel_magnitudes, equalize_activations

        with self.stages.stage("equalize the activations"):
            magnitudes = channel_magnitudes(graph, dataset.batches(0, self.options.samples, 16))
            return equalize_activations(graph, magnitudes)

    def _plan(self, recipe: Recipe, observed: Observed, folded: Graph) -> Plan:
        """Decide every integer of a recipe, and keep them with their scales."""
        from resnet_edge.quantization.quantize import quantize_graph
        from resnet_edge.quantization.storage import save_integers

        quantized = quantize_graph(
            observed.graph,
            recipe,
            observed.statistics,
            io=self.options.io,
            overrides=self.options.overrides,
            input_range=(0.0, 255.0) if self.manifest.fold_input else None,
            moments=observed.moments,
        )
        spec = self.folder / f"{self.manifest.model.name}-{recipe.name}.spec.json"
        integers = self.folder / f"{self.manifest.model.name}-{recipe.name}.integers.safetensors"
        for path in (spec, integers):
            bundles.remove(path)
        spec.write_text(quantized.spec.text(), encoding="utf-8")
        save_integers(quantized, folded, integers)
        return Plan(quantized=quantized, spec=spec, integers=integers)

    def _converters(self, recipe: Recipe) -> dict[str, QuantizingConverter]:
        """The formats asked for, or those of the bundle, as far as the recipe and the converters go."""
        asked = [name for name in self.options.formats if name != "all"]
        present = [artifact.format for artifact in self.manifest.artifacts if artifact.precision == "fp32"]
        found = {}
        # TensorFlow takes half a gigabyte from its first use on: what can, goes before it.
        for name in sorted(asked or dict.fromkeys(present), key=lambda name: name == "savedmodel"):
            if name not in recipe.formats and not asked:
                continue
            converter = load_converter(name)
            if isinstance(converter, QuantizingConverter) and recipe.base in converter.recipes:
                found[name] = converter
            elif asked:
                raise UsageError(f"the converter for {name!r} cannot write recipe {recipe.name!r}")
        return found

    def _write(
        self,
        name: str,
        converter: QuantizingConverter,
        recipe: Recipe,
        plan: Plan,
        judge: Judge,
    ) -> ArtifactRecord:
        """Write one artifact, compare what it holds with the spec, and run it."""
        from resnet_edge.quantization.readback import check

        path = self.folder / f"{self.manifest.model.name}-{recipe.name}{converter.suffix}"
        quantized = plan.quantized
        bundles.remove(path)
        with self.stages.stage(f"write {recipe.name} {name}"):
            converter.convert(quantized.graph, path, self._settings(), quantized)
        with self.stages.stage(f"read back {recipe.name} {name}"):
            check(converter.read_back(path, quantized), quantized, where=path.name)
        with (
            self.stages.stage(f"run {recipe.name} {name}"),
            converter.open(path, threads=usable_cores()) as engine,
        ):
            parity = judge.judge(engine, quantized, artifact=path.name)
        return ArtifactRecord(
            path=path.name,
            format=name,
            precision=recipe.name,
            size=bundles.size(path),
            sha256=bundles.digest(path),
            parity=parity,
            spec=plan.spec.name,
            spec_sha256=bundles.digest(plan.spec),
            integers=plan.integers.name,
            integers_sha256=bundles.digest(plan.integers),
        )

    def _settings(self) -> ConversionSettings:
        return ConversionSettings(
            batch=self.manifest.input.shape[0],
            opset=self.manifest.opset,
            onnx_layout=self.manifest.onnx_layout,
            onnx_activations=self.options.onnx_activations,
            metadata={
                "labels": "\n".join(self.manifest.labels),
                "preprocessing": json.dumps(dict(self.manifest.preprocessing), sort_keys=True),
            },
        )
