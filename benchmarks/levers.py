"""What each lever brings int8 closer to float; prints the Markdown tables of docs/accuracy_levers.md.

    python -m benchmarks.levers [--models resnet8-logits,resnet20,shipped] [--tables added,removed,observers]

Files are judged as in ``benchmarks.quantize``: 200 calibration images, 1,300 others, as ``.tflite`` in LiteRT
with XNNPACK, clean and recompressed as JPEG. Levers that are no options are switched off by patching.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from benchmarks.quantize_measure import agreement, open_tflite, outputs_of, sqnr
from benchmarks.quantize_models import SETS, recompressed, source, write_images
from resnet_edge.contents import artifact_contract, load_folded, load_imported
from resnet_edge.converters import ConversionSettings
from resnet_edge.graph.execution import execute
from resnet_edge.manifest import read_manifest
from resnet_edge.pipeline import ExportOptions, export
from resnet_edge.quantization import activation_equalization, calibration, quantize, scales
from resnet_edge.quantization.equalization import equalize
from resnet_edge.quantization.input_moments import measure
from resnet_edge.quantization.observers import OBSERVERS
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge_converters.tflite import TFLiteConverter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph

TITLES = {"resnet8-logits": "ResNet-8", "resnet20": "ResNet-20", "shipped": "shipped model"}
SHIPPED_DATA = Path(__file__).resolve().parents[1] / "calibration_data" / "fashion_mnist"
CALIBRATION, EVALUATION = 200, 1300
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Levers:
    """A setting; the defaults are those of ``resnet-edge quantize``."""

    recipe: str = "int8"
    observer: str = "mse"
    weight_range: str = "max"
    bias_correction: bool = True
    learned: bool = True
    equalized: bool = False
    activations: bool = True
    headroom: bool = True
    rectified: bool = True
    aligned: bool = True


NOTHING = Levers(
    bias_correction=False, learned=False, activations=False, headroom=False, rectified=False, aligned=False
)
ORDER = {
    "bias_correction": "bias correction",
    "learned": "learned rounding",
    "activations": "activation equalization",
    "headroom": "headroom",
    "rectified": "rectified sums",
    "aligned": "aligned additions",
}


class Model:
    """A trained network with its images."""

    def __init__(self, name: str, folder: Path) -> None:
        self.title = TITLES[name]
        bundle = folder / "bundle"
        if name == "shipped":
            export("resnet8", bundle, ExportOptions(formats=("onnx",), weights="fashion-mnist"))
        else:
            model, options = source(name)
            export(model, bundle, ExportOptions(formats=("onnx",), **options))
        manifest = read_manifest(bundle)
        self._graph = load_folded(bundle, manifest, load_imported(bundle, manifest))
        contract = artifact_contract(manifest)
        if name == "shipped":
            pixels = np.load(SHIPPED_DATA / "test.npz")["images"][:EVALUATION]
            small = np.load(SHIPPED_DATA / "calibration.npz")["images"][:CALIBRATION]
            jpeg = recompressed(pixels.squeeze(-1))[..., None]
            self._calibration = contract.apply(small)
            self._evaluation = {"clean": contract.apply(pixels), "jpeg": contract.apply(jpeg)}
        else:
            write_images(name, folder, contract)
            self._calibration = np.load(folder / "calibration.npy")
            with np.load(folder / "evaluation.npz") as data:
                self._evaluation = {which: data[which] for which in SETS}

    @cached_property
    def _reference(self) -> Mapping[str, NDArray[np.float32]]:
        return {
            which: np.concatenate([execute(self._graph, part) for part in parts(images)])
            for which, images in self._evaluation.items()
        }

    def cells(self, levers: Levers) -> tuple[str, str]:
        """SQNR and agreement of the quantized file, each on both sets of images."""
        run = open_tflite(self._file(levers))
        pairs = [(self._reference[which], outputs_of(run, self._evaluation[which])) for which in SETS]
        noise = (f"{sqnr(reference, outputs):.1f}" for reference, outputs in pairs)
        same = (f"{100 * agreement(reference, outputs):.1f}" for reference, outputs in pairs)
        return " / ".join(noise), " / ".join(same)

    def _file(self, levers: Levers) -> Path:
        recipe = replace(
            RECIPES[levers.recipe],
            bias_correction=levers.bias_correction,
            weight_range=levers.weight_range,  # type: ignore[arg-type]
        )
        images = list(parts(self._calibration))
        with ExitStack() as stack:
            if not levers.headroom:
                stack.enter_context(patch.object(scales, "HEADROOM", 1.0))
            if not levers.rectified:
                for module in (calibration, activation_equalization):
                    stack.enter_context(patch.object(module, "rectified_addends", lambda _graph: {}))
            if not levers.aligned:
                stack.enter_context(patch.object(quantize, "align_additions", lambda *_: None))
            graph = self._prepared(levers, images)
            quantized = quantize.quantize_graph(
                graph,
                recipe,
                calibration.calibrate(graph, images, observer=levers.observer),
                moments=measure(graph, images) if levers.learned else None,
            )
        path = Path(tempfile.mkdtemp()) / "model.tflite"
        TFLiteConverter().convert(quantized.graph, path, ConversionSettings(batch=1), quantized)
        return path

    def _prepared(self, levers: Levers, images: Sequence[NDArray[np.float32]]) -> Graph:
        graph = equalize(self._graph) if levers.equalized else self._graph
        if not levers.activations:
            return graph
        magnitudes = activation_equalization.channel_magnitudes(graph, images)
        return activation_equalization.equalize_activations(graph, magnitudes)


def parts(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def added() -> dict[str, Levers]:
    """One lever after the other."""
    rows, levers = {"none": NOTHING}, NOTHING
    for name, title in ORDER.items():
        levers = replace(levers, **{name: True})  # type: ignore[arg-type]
        rows[f"+ {title}"] = levers
    return rows


def _without(lever: str) -> Levers:
    return replace(Levers(), **{lever: False})  # type: ignore[arg-type]


def removed() -> dict[str, Levers]:
    """All levers but one."""
    rows = {"all (the default)": Levers()}
    rows |= {f"without {title}": _without(name) for name, title in ORDER.items()}
    return rows | {'with `weight_range = "mse"`': Levers(weight_range="mse")}


def per_tensor() -> dict[str, Levers]:
    """One weight scale a tensor: the levers that matter there."""
    whole = Levers(recipe="int8-per-tensor", activations=False, equalized=True)
    return {
        "neither": replace(whole, learned=False, equalized=False),
        "cross-layer equalization": replace(whole, learned=False),
        "learned rounding": replace(whole, equalized=False),
        "both (the default)": whole,
    }


def observers() -> dict[str, Levers]:
    """The ways to choose a range."""
    return {f"`{name}`": Levers(observer=name) for name in OBSERVERS}


TABLES = {"added": added, "removed": removed, "per-tensor": per_tensor, "observers": observers}


def table(title: str, rows: Mapping[str, Levers], models: Sequence[Model]) -> Iterator[str]:
    """SQNR and agreement, clean / JPEG, of every model."""
    heads = [f"{model.title} SQNR | agreement" for model in models]
    yield f"| {title} | " + " | ".join(heads) + " |"
    yield "|" + "---|" * (1 + 2 * len(models))
    for name, levers in rows.items():
        yield f"| {name} | " + " | ".join(cell for model in models for cell in model.cells(levers)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", default=",".join(TITLES))
    parser.add_argument("--tables", default=",".join(TABLES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        models = []
        for name in arguments.models.split(","):
            folder = Path(temporary) / name
            folder.mkdir()
            models.append(Model(name, folder))
        for name in arguments.tables.split(","):
            for line in table(name, TABLES[name](), models):
                print(line, flush=True)
            print()


if __name__ == "__main__":
    main()
