"""The model that each method trains, and what is learned from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from resnet_edge.errors import UsageError
from resnet_edge.finetuning.clustering import Clustered
from resnet_edge.finetuning.layers import choose_layers
from resnet_edge.finetuning.pruning import Pruned
from resnet_edge.finetuning.qat import FakeQuantized
from resnet_edge.inspection.onnx_activations import activation_type
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge.quantization.storage import load_quantized, load_spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resnet_edge.finetuning.options import FinetuneOptions
    from resnet_edge.graph import Graph
    from resnet_edge.manifest import ArtifactRecord, Manifest
    from resnet_edge.quantization.recipes import Recipe
    from resnet_edge.quantization.spec import Quantized, QuantSpec


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a training begins with, before any framework is loaded or image read.

    Attributes:
        graph: The folded graph, perhaps pruned before.
        quantized: For ``qat``: what calibration made of it.
        recipe: For ``qat``: the recipe that it was made with.
        onnx_activations: For ``qat``: the type of activations in the ONNX file that is to be replaced.
        layers: For the other methods: the layers to work on.
        keep_zeros: Whether weights that are zero stay so.
    """

    graph: Graph
    quantized: Quantized | None = None
    recipe: Recipe | None = None
    onnx_activations: Literal["uint8", "int8"] = "uint8"
    layers: tuple[str, ...] = ()
    keep_zeros: bool = False

    @classmethod
    def of(cls, folder: Path, manifest: Manifest, graph: Graph, options: FinetuneOptions) -> Start:
        """Find in a bundle what the method needs.

        Raises:
            UsageError: The bundle has no such recipe, or a pattern matches no layer.
            ModelRejectedError: The integers cannot be read, or no layer is left to work on.
        """
        if manifest.was("cluster"):
            raise UsageError(
                "the bundle's weights are clustered, and training would not leave them so",
                where=str(folder),
                next_step="finetune the bundle that it was made from",
            )
        keep_zeros = manifest.was("prune") and options.method != "prune"
        if options.method != "qat":
            layers = choose_layers(graph, options.layers, keep_ends=options.method == "cluster")
            return cls(graph=graph, layers=layers, keep_zeros=keep_zeros)
        record, spec = _choose_spec(folder, manifest, options.recipe)
        return cls(
            graph=graph,
            quantized=load_quantized(folder / record.spec, folder / record.integers, graph),
            recipe=replace(RECIPES[spec.recipe], name=record.precision),
            onnx_activations=_onnx_activations(folder, manifest, record.precision),
            keep_zeros=keep_zeros,
        )

    def student(self, options: FinetuneOptions, steps: int) -> FakeQuantized | Pruned | Clustered:
        """The model to train.

        Args:
            options: The method's settings.
            steps: Of the whole training.

        Raises:
            ModelRejectedError: An operator cannot be fine-tuned; names it.
        """
        if self.quantized is not None:
            return FakeQuantized.of(self.quantized, keep_zeros=self.keep_zeros)
        if options.sparsity is not None:
            return Pruned.of(self.graph, self.layers, options.sparsity, steps)
        assert options.clusters is not None  # noqa: S101 - checked with the options
        return Clustered.of(self.graph, self.layers, options.clusters, keep_zeros=self.keep_zeros)


def _onnx_activations(folder: Path, manifest: Manifest, recipe: str) -> Literal["uint8", "int8"]:
    """What the user chose for the recipe's ONNX file; the default where there is none.

    Raises:
        ModelRejectedError: The file is damaged.
    """
    for record in manifest.artifacts:
        if (record.precision, record.format) == (recipe, "onnx"):
            return activation_type(folder / record.path)
    return "uint8"


def _choose_spec(folder: Path, manifest: Manifest, wanted: str | None) -> tuple[ArtifactRecord, QuantSpec]:
    """The integer recipe to train, by one of its artifacts.

    Raises:
        UsageError: There is none, or several and none was named.
    """
    found = _integer_specs(folder, manifest)
    name = next(iter(found)) if wanted is None and len(found) == 1 else wanted
    if name is not None and name in found:
        return found[name]
    raise UsageError(
        "say which recipe to train" if found and name is None else "the bundle has no such integer recipe",
        where="--recipe",
        found=name or "",
        allowed=", ".join(found),
        next_step=""
        if found
        else f"quantize it first: resnet-edge quantize {folder} --recipe int8 --calibration DATA",
    )


def _integer_specs(folder: Path, manifest: Manifest) -> Mapping[str, tuple[ArtifactRecord, QuantSpec]]:
    """Those of the bundle's recipes that compute with integers, by name."""
    found = {}
    for record in manifest.artifacts:
        if record.spec and record.precision not in found:
            spec = load_spec(folder / record.spec)
            if spec.tensors:
                found[record.precision] = record, spec
    return found
