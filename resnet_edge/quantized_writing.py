"""Quantized artifacts of a bundle: written from one spec, read back, run, and recorded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from resnet_edge import bundle as bundles
from resnet_edge.contents import conversion_settings
from resnet_edge.converters import ConversionSettings, QuantizingConverter, load_converter
from resnet_edge.engines.threads import usable_cores
from resnet_edge.errors import UsageError
from resnet_edge.manifest import ArtifactRecord, Manifest

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from resnet_edge.graph import Graph
    from resnet_edge.quantization.parity import Judge
    from resnet_edge.quantization.recipes import Recipe
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.stages import Stages


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every format of a recipe is written from.

    Attributes:
        recipe: It.
        quantized: The graph, its spec and its integers.
        spec: Name of the file with the spec.
        spec_sha256: Its digest.
        integers: Name of the file with the integers.
        integers_sha256: Its digest.
    """

    recipe: Recipe
    quantized: Quantized
    spec: str
    spec_sha256: str
    integers: str
    integers_sha256: str


def load_ahead(formats: Container[str]) -> None:
    """Load TensorFlow in the background if one of the formats needs it: two seconds of one core."""
    if "savedmodel" in formats:
        loading = ThreadPoolExecutor(1)
        # An error is let go: it comes again where TensorFlow is used.
        loading.submit(import_module, "resnet_edge.tensorflow_import")
        loading.shutdown(wait=False)


@dataclass(frozen=True, kw_only=True)
class QuantizedWriter:
    """Writes into one bundle in the making.

    Attributes:
        folder: The bundle.
        manifest: What it holds so far.
        formats: Those asked for; empty for those of the bundle.
        onnx_activations: Element type of activations in ONNX files.
        stages: Times the work.
    """

    folder: Path
    manifest: Manifest
    formats: tuple[str, ...] = ()
    onnx_activations: Literal["uint8", "int8"] = "uint8"
    stages: Stages

    def choose_converters(self, recipe: Recipe) -> dict[str, QuantizingConverter]:
        """The formats asked for, or those of the bundle, as far as the recipe and the converters go."""
        asked = [name for name in self.formats if name != "all"]
        present = [artifact.format for artifact in self.manifest.artifacts if artifact.precision == "fp32"]
        found = {}
        # TensorFlow takes half a gigabyte, and is still being loaded meanwhile: what can, goes before it.
        for name in sorted(asked or dict.fromkeys(present), key=lambda name: name == "savedmodel"):
            if name not in recipe.formats and not asked:
                continue
            converter = load_converter(name)
            if isinstance(converter, QuantizingConverter) and recipe.base in converter.recipes:
                found[name] = converter
            elif asked:
                raise UsageError(f"the converter for {name!r} cannot write recipe {recipe.name!r}")
        return found

    def keep(self, quantized: Quantized, recipe: Recipe, folded: Graph) -> Plan:
        """Write down the spec and the integers that every format is to hold.

        Args:
            quantized: What a recipe, or training, has come to.
            recipe: Names the files.
            folded: The float graph that every precision starts from.
        """
        from resnet_edge.quantization.storage import save_integers

        spec = self.folder / f"{self.manifest.model.name}-{recipe.name}.spec.json"
        integers = self.folder / f"{self.manifest.model.name}-{recipe.name}.integers.safetensors"
        for path in (spec, integers):
            bundles.remove(path)
        spec.write_text(quantized.spec.text(), encoding="utf-8")
        save_integers(quantized, folded, integers)
        return Plan(
            recipe=recipe,
            quantized=quantized,
            spec=spec.name,
            spec_sha256=bundles.digest(spec),
            integers=integers.name,
            integers_sha256=bundles.digest(integers),
        )

    def write(
        self, plan: Plan, converters: Mapping[str, QuantizingConverter], judge: Judge
    ) -> list[ArtifactRecord]:
        """Write, read back and run an artifact of every format.

        Raises:
            ConversionFailedError: A file could not be written, or holds other integers than the spec.
            GateFailedError: It has collapsed.
        """
        return [self._write(name, converter, plan, judge) for name, converter in converters.items()]

    def still_valid(self, added: Sequence[ArtifactRecord]) -> list[ArtifactRecord]:
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

    def _write(
        self,
        name: str,
        converter: QuantizingConverter,
        plan: Plan,
        judge: Judge,
    ) -> ArtifactRecord:
        """Write one artifact, compare what it holds with the spec, and run it."""
        from resnet_edge.quantization.readback import check

        path = self.folder / f"{self.manifest.model.name}-{plan.recipe.name}{converter.suffix}"
        quantized = plan.quantized
        bundles.remove(path)
        with self.stages.stage(f"write {plan.recipe.name} {name}"):
            converter.convert(quantized.graph, path, self._settings(), quantized)
        with self.stages.stage(f"read back {plan.recipe.name} {name}"):
            check(converter.read_back(path, quantized), quantized, where=path.name)
        with (
            self.stages.stage(f"run {plan.recipe.name} {name}"),
            converter.open(path, threads=usable_cores()) as engine,
        ):
            parity = judge.judge(engine, quantized, artifact=path.name)
        return ArtifactRecord(
            path=path.name,
            format=name,
            precision=plan.recipe.name,
            size=bundles.size(path),
            sha256=bundles.digest(path),
            parity=parity,
            spec=plan.spec,
            spec_sha256=plan.spec_sha256,
            integers=plan.integers,
            integers_sha256=plan.integers_sha256,
        )

    def _settings(self) -> ConversionSettings:
        return conversion_settings(self.manifest, onnx_activations=self.onnx_activations)
