"""What fine-tuning wins back, and what it costs; prints a Markdown table.

    python -m benchmarks.finetune [--epochs 2] [--prune-epochs 3] [--images 60000] [--keep FOLDER]

The shipped model in a deliberately hard setting: `int8-per-tensor` with ranges by the entropy observer from a
single image, a sandal. It is trained on the training images of Fashion-MNIST (Debian's package
dataset-fashion-mnist) and evaluated on all 10,000 test images by `verify`, against the float model.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge import (
    ExportOptions,
    FinetuneOptions,
    QuantizeOptions,
    VerifyOptions,
    export,
    finetune,
    quantize,
    verify,
)
from resnet_edge.inspection.files import inspect_file
from training.source import read_training

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnet_edge.verification.report import ArtifactReport

SANDAL = 30
"""The training image that the ranges are from."""

RECIPE = "int8-per-tensor"
SPARSITY, CLUSTERS = 0.5, 32
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    file: Path
    result: ArtifactReport
    seconds: float = 0.0
    megabytes: float = 0.0

    def text(self) -> str:
        accuracy = self.result.accuracy
        assert accuracy is not None
        drop, report = accuracy.drop, inspect_file(self.file)
        packed = (report.gzip_size or 0) / 1000
        cost = f"{self.seconds:.0f} s, {self.megabytes:.0f} MB" if self.seconds else "-"
        return (
            f"| {self.name} | {accuracy.top1.count / accuracy.top1.of:.2%} | {drop.points:+.2f} pp "
            f"({drop.low:.2f} to {drop.high:.2f}) | {report.size / 1000:.0f} kB, {packed:.0f} kB | {cost} |"
        )


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that the work takes, and the peak memory in MB of a process of its own that does it."""
    sys.stdout.flush()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit("a fine-tuning failed; see above")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - began, usage.ru_maxrss * unit / MEGABYTE


def row(name: str, bundle: Path, artifact: str, cost: tuple[float, float] = (0.0, 0.0)) -> Row:
    """An artifact verified on the test images, in a process that has not loaded TensorFlow for training."""
    report = verify(bundle, VerifyOptions(artifacts=(artifact,), data="fashion-mnist"))
    return Row(
        name=name,
        file=bundle / artifact,
        result=report.artifacts[0],
        seconds=cost[0],
        megabytes=cost[1],
    )


def prepare(folder: Path, images: int) -> None:
    """The bundle in its hard setting, and the training images."""
    training = read_training()
    data, one = folder / "train.npz", folder / "one.npz"
    np.savez(data, images=training.images[:images], labels=training.labels[:images])
    np.savez(one, images=training.images[[SANDAL, *range(100, 200)]])
    base = folder / "base"
    calibration = QuantizeOptions(
        recipes=(RECIPE,), calibration=str(one), samples=1, observer="entropy", formats=("tflite",)
    )
    export("resnet8", base, ExportOptions(weights="fashion-mnist", formats=("tflite",)))
    quantize(base, None, calibration)


def equality(base: Path, folder: Path, options: FinetuneOptions) -> None:
    """Train once more, and compare the trained model with its integers on all test images."""
    from resnet_edge.contents import artifact_contract
    from resnet_edge.data.datasets import open_dataset
    from resnet_edge.finetuning.equality import compare
    from resnet_edge.finetuning.qat import FakeQuantized
    from resnet_edge.finetuning.steps import Finetuning
    from resnet_edge.manifest import read_manifest
    from resnet_edge.stages import Stages

    student = (
        Finetuning(source=base, destination=folder / "again", options=options, stages=Stages())
        .train()
        .student
    )
    assert isinstance(student, FakeQuantized)
    test = open_dataset("fashion-mnist", artifact_contract(read_manifest(base)), split="test")
    found = compare(student.model, student.result(), np.concatenate(list(test.batches())))
    print(
        f"\nThe exported integers against the trained model on {len(test)} test images: the same prediction "
        f"on {found.same_prediction:.3%}, {found.within_a_step:.3%} of the outputs within one step."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--prune-epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--keep", type=Path, help="an existing folder for the bundles")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = settings.keep or Path(temporary)
        jobs = {
            "qat": FinetuneOptions(method="qat", recipe=RECIPE, data="", epochs=settings.epochs),
            "prune": FinetuneOptions(
                method="prune", sparsity=SPARSITY, data="", epochs=settings.prune_epochs
            ),
            "cluster": FinetuneOptions(method="cluster", clusters=CLUSTERS, data="", epochs=settings.epochs),
        }
        run(folder, jobs, settings.images)


def run(folder: Path, jobs: dict[str, FinetuneOptions], images: int) -> None:
    # Children fork from a process in which no framework has started its threads.
    made: dict[str, Path] = {}
    measured(lambda: prepare(folder, images))
    base, data = folder / "base", folder / "train.npz"
    costs = {}
    for name, options in jobs.items():
        made[name] = folder / name
        work = replace(options, data=str(data))
        costs[name] = measured(partial(finetune, base, made[name], work))
    print("| | top-1 | drop against float | size, gzip | time, peak memory |\n|---|---|---|---|---|")
    print(row("float", base, "resnet8-fp32.tflite").text())
    print(row(f"{RECIPE}, one image", base, f"resnet8-{RECIPE}.tflite").text())
    print(row("the same after `qat`", made["qat"], f"resnet8-{RECIPE}.tflite", costs["qat"]).text())
    print(row("`prune --sparsity 0.5`", made["prune"], "resnet8-fp32.tflite", costs["prune"]).text())
    print(row("`cluster --clusters 32`", made["cluster"], "resnet8-fp32.tflite", costs["cluster"]).text())
    equality(base, folder, replace(jobs["qat"], data=str(data)))


if __name__ == "__main__":
    main()
