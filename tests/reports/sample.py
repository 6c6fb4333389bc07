"""A report with everything in it: failures of every kind, and names that are out to do harm."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from resnet_edge.runners import Condition, Machine
from resnet_edge.verification.layer import Layer, Layers
from resnet_edge.verification.report import (
    Accuracy,
    ArtifactReport,
    Change,
    ChangedImage,
    Check,
    ClassAccuracy,
    Data,
    Drop,
    Latency,
    Parity,
    Prediction,
    Proportion,
    Ratio,
    Report,
    Step,
)

if TYPE_CHECKING:
    from resnet_edge.verification.report import Verdict

HOSTILE = '<script>alert("1")</script>'
"""HTML in a label."""
MARKUP = "[bold]shirt[/] | \x1b[31m\u202e"
"""Rich's markup, a table's separator, a terminal's escape code and a right-to-left override in a label."""
IMAGES = 2000
CLASSES = ("trouser", "pullover", HOSTILE, MARKUP, "sandal", "ankle boot")


def proportion(count: int, of: int = IMAGES) -> Proportion:
    """With Wilson's interval at 95 %."""
    z = 1.959964
    share, spread = count / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / of / 4) / (1 + spread)
    return Proportion(count=count, of=of, low=middle - half, high=middle + half)


def _parity(sqnr: float | None, agreeing: int, lsb: float | None = None) -> Parity:
    error = 0.0 if sqnr is None else 12.0 * 10 ** (-sqnr / 20)
    return Parity(
        images=IMAGES,
        non_finite=0,
        max_abs_error=4 * error,
        mean_abs_error=error,
        max_abs_reference=14.2,
        sqnr_db=sqnr,
        cosine=1.0 if sqnr is None else 1 - 10 ** (-sqnr / 10) / 2,
        top1_agreement=proportion(agreeing),
        top5_agreement=proportion(min(IMAGES, agreeing + 18)),
        kl_divergence=error / 40,
        max_lsb=lsb,
        mean_lsb=None if lsb is None else lsb / 9,
    )


def _accuracy(lost: int, won: int) -> Accuracy:
    loss = 100 * (lost - won) / IMAGES
    half = 196 * math.sqrt(lost + won - (lost - won) ** 2 / IMAGES) / IMAGES
    return Accuracy(
        top1=proportion(1748 - lost + won),
        top5=proportion(1990),
        reference_top1=proportion(1748),
        drop=Drop(
            points=loss,
            low=loss - half,
            high=loss + half,
            lost=lost,
            won=won,
            p_value=2e-18 if lost > 100 else 0.243 if lost > 2 else 1.0,
        ),
        worst_class=ClassAccuracy(label=MARKUP, images=204, accuracy=0.594, reference_accuracy=0.652),
        changes=(
            Change(reference=MARKUP, artifact="pullover", images=14, lost=9, won=2),
            Change(reference=HOSTILE, artifact="trouser", images=6, lost=4, won=1),
            Change(reference="sandal", artifact="ankle boot", images=3, lost=1, won=1),
        )
        if lost > 2
        else (),
    )


def _latency(median: float, speedup: float | None, memory: int) -> Latency:
    return Latency(
        batch=1,
        threads=1,
        warmup=20,
        runs=200,
        median_ms=median,
        p90_ms=median * 1.09,
        p99_ms=median * 1.31,
        load_ms=3.2,
        peak_memory=memory,
        speedup=Ratio(value=speedup, low=speedup * 0.96, high=speedup * 1.05) if speedup else None,
        before=Condition(governor="performance", clock_mhz=1800.0, temperature_c=48.3),
        after=Condition(governor="performance", clock_mhz=1800.0, temperature_c=61.0),
    )


def _step(name: str, sqnr: float | None, step: float | None, changed: int, by_step: int) -> Step:
    return Step(
        name=name, sqnr_db=sqnr, step_sqnr_db=step, changed=changed, step_changed=by_step, images=IMAGES
    )


FOLDED = _step("folded graph", 121.4, 121.4, 0, 0)
INTEGERS = _step("int8 integer reference", 29.8, 29.8, 47, 47)

_OPERATORS = ("Conv2D", "Conv2D", "Conv2D", "Add")


def _layers(*, broken: bool) -> Layers:
    """A ResNet-8's worth of layers whose error grows; one that computes something else."""
    found = []
    for index in range(14):
        operator = _OPERATORS[index % 4] if index < 12 else ("GlobalAveragePool", "Dense")[index - 12]
        wrong = broken and index == 6
        shift = 17.5 if broken and index >= 6 else 0.0
        alone = 43.0 + 5 * math.cos(2.3 * index) - (21.0 if wrong else 0.0)
        name = f"block{index // 4 + 1}/{operator.lower()}_{index}" if index != 3 else "add_<b>3</b>"
        found.append(
            Layer(
                node=name,
                operator=operator,
                as_run_db=44.5 - 1.05 * index - shift * (0.93 ** (index - 6)),
                alone_db=None if index == 12 else alone,
                max_lsb=None if index == 12 else 9 if wrong else index % 2,
                verdict="not run"
                if index == 12
                else ("kernel bug" if wrong else ("exact", "within 1 LSB")[index % 2]),
                reason="the runtime fuses it into its neighbour" if index == 12 else "",
            )
        )
    bad = found[6].node
    return Layers(
        layers=tuple(found),
        images=64,
        first=bad if broken else "",
        worst=bad if broken else found[1].node,
        wrong=(bad,) if broken else (),
        sentence=(
            f"{bad} (Conv2D) computes something else than the integer reference: off by 9 LSB on its own, "
            "where 1 LSB is allowed (n = 64); everything after it inherits the error."
            if broken
            else "No layer stands out: the error grows evenly with depth (n = 64), as rounding does."
        ),
    )


def _artifacts() -> tuple[ArtifactReport, ...]:
    lite, ort = "LiteRT 2.3.0 (XNNPACK)", "ONNX Runtime 1.27.0"
    return (
        ArtifactReport(
            path="resnet8-fp32.tflite",
            format="tflite",
            precision="fp32",
            size=314_212,
            runner="local",
            engine=lite,
            parity=_parity(118.6, IMAGES),
            accuracy=_accuracy(0, 0),
            waterfall=(FOLDED, _step("LiteRT (XNNPACK)", 118.6, 120.9, 0, 0)),
            latency=_latency(0.823, None, 58_000_000),
        ),
        ArtifactReport(
            path="resnet8-fp16.tflite",
            format="tflite",
            precision="fp16",
            size=163_120,
            runner="local",
            engine=lite,
            parity=_parity(69.9, 1998),
            accuracy=_accuracy(1, 1),
            waterfall=(FOLDED, _step("LiteRT (XNNPACK)", 69.9, 69.9, 2, 2)),
            latency=_latency(0.841, 0.98, 58_400_000),
        ),
        ArtifactReport(
            path="resnet8-int8.tflite",
            format="tflite",
            precision="int8",
            size=93_456,
            runner="local",
            engine=lite,
            parity=_parity(14.1, 1787, 61.0),
            accuracy=_accuracy(131, 26),
            waterfall=(FOLDED, INTEGERS, _step("LiteRT (XNNPACK)", 14.1, 14.3, 213, 201)),
            layers=_layers(broken=True),
            latency=_latency(0.302, 2.73, 51_200_000),
        ),
        ArtifactReport(
            path="resnet8-fp32.onnx",
            format="onnx",
            precision="fp32",
            size=317_904,
            runner="local",
            engine=ort,
            parity=_parity(119.2, IMAGES),
            accuracy=_accuracy(0, 0),
            waterfall=(FOLDED, _step("ONNX Runtime", 119.2, 121.0, 0, 0)),
            latency=_latency(0.611, None, 73_500_000),
        ),
        ArtifactReport(
            path="resnet8-int8.onnx",
            format="onnx",
            precision="int8",
            size=101_772,
            runner="local",
            engine=ort,
            parity=_parity(29.6, 1951, 8.0),
            accuracy=_accuracy(22, 14),
            waterfall=(FOLDED, INTEGERS, _step("ONNX Runtime", 29.6, 41.3, 49, 12)),
            layers=_layers(broken=False),
            latency=_latency(0.344, 1.78, 70_100_000),
        ),
        ArtifactReport(
            path="resnet8-fp32-savedmodel",
            format="savedmodel",
            precision="fp32",
            size=412_300,
            runner="local",
            engine="TensorFlow",
        ),
    )


def _check(
    name: str,
    artifact: str,
    verdict: Verdict,
    sentence: str,
    found: float | None = None,
    limit: float | None = None,
) -> Check:
    return Check(
        name=name,
        artifact=artifact,
        runner="" if name == "files" else "local",  # files are read here, whatever runs them
        verdict=verdict,
        sentence=sentence,
        found=found,
        limit=limit,
    )


def _checks() -> tuple[Check, ...]:
    good = [
        _check(name, artifact, "pass", sentence)
        for artifact in (
            "resnet8-fp32.tflite",
            "resnet8-fp16.tflite",
            "resnet8-fp32.onnx",
            "resnet8-int8.onnx",
        )
        for name, sentence in (
            ("files", "The file is the one that was exported."),
            ("finite", "All 2,000 x 10 outputs are finite."),
        )
    ]
    return (
        *good,
        _check("files", "resnet8-int8.tflite", "pass", "The file is the one that was exported."),
        _check(
            "sqnr",
            "resnet8-int8.tflite",
            "fail",
            "SQNR is 14.1 dB on 2,000 images, and 20 dB is the least for int8; look at the layers below.",
            14.1,
            20.0,
        ),
        _check(
            "drop",
            "resnet8-int8.tflite",
            "fail",
            "Top-1 falls by 5.2 points on 2,000 images (4.1 to 6.4), and 2 are allowed.",
            5.25,
            2.0,
        ),
        _check(
            "operators",
            "resnet8-int8.tflite",
            "fail",
            "block2/conv2d_6 is off by 9 LSB from the exact integer reference, where 1 is allowed (n = 64): "
            "write it out with --bisect and try the reference kernels.",
            9.0,
            1.0,
        ),
        _check(
            "drop",
            "resnet8-int8.onnx",
            "inconclusive",
            "Top-1 falls by 0.4 points on 2,000 images (-0.2 to +1.0), and 0.5 are allowed: "
            "about 5,400 more images would decide.",
            0.4,
            0.5,
        ),
        _check(
            "runtime",
            "resnet8-fp32-savedmodel",
            "skipped",
            f"TensorFlow is not installed, so {HOSTILE} was not run: install tensorflow to include it.",
        ),
    )


def _png(index: int) -> str:
    """Seeded noise, base64."""
    pixels = np.random.default_rng(index).integers(0, 256, (28, 28), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _changed() -> tuple[ChangedImage, ...]:
    return tuple(
        ChangedImage(
            index=17 + 61 * index,
            png="" if index == 5 else _png(index),
            truth=CLASSES[(index + index // 3) % 6],
            reference=Prediction(label=CLASSES[index % 6], probability=0.58 + 0.03 * index),
            artifacts={
                "resnet8-int8.tflite": Prediction(label=CLASSES[(index + 1) % 6], probability=0.91),
                **(
                    {"resnet8-int8.onnx": Prediction(label=CLASSES[(index + 1) % 6], probability=0.52)}
                    if index % 3 == 0
                    else {}
                ),
            },
        )
        for index in range(8)
    )


def sample() -> Report:
    """The report."""
    return Report(
        subject="resnet8-bundle",
        model="resnet8",
        reference="reference.keras in Keras 3.15.1",
        data=Data(
            name="fashion-mnist",
            images=IMAGES,
            available=10_000,
            labelled=True,
            digest="5f" * 32,
            notes=("2,000 of 10,000 images were used, the same number of each class.",),
        ),
        confidence=0.95,
        machines={
            "local": Machine(
                system="Linux",
                architecture="x86_64",
                cpu="An example CPU @ 2.90GHz",
                features=("avx2", "avx512f", "avx512_vnni"),
                cores=2,
                memory=16_000_000_000,
                python="3.11.2",
                packages={"ai-edge-litert": "2.3.0", "onnxruntime": "1.27.0", "numpy": "2.4.0"},
            )
        },
        artifacts=_artifacts(),
        checks=_checks(),
        changed=_changed(),
        notes=("The reference's predictions were found in the bundle's cache.",),
        versions={"resnet-edge": "0.1.0", "keras": "3.15.1", "numpy": "2.4.0"},
        command=("resnet-edge", "verify", "resnet8-bundle", "--data", "fashion-mnist", "--max-drop", "2"),
        created="2026-01-02T03:04:05Z",
        seconds={"reference": 2.4, "artifacts": 3.9, "layers": 1.2, "latency": 6.0},
    )


def hostile() -> Report:
    """The sample with every name out to do harm."""
    report = sample()
    bad = f"{HOSTILE}{MARKUP}\n\udc80"
    return dataclasses.replace(
        report,
        subject=bad,
        model=bad,
        reference=bad,
        data=dataclasses.replace(report.data, name=bad, notes=(bad,)),
        machines={bad: dataclasses.replace(report.machines["local"], cpu=bad)},
        artifacts=tuple(
            dataclasses.replace(each, path=f"{index}{bad}", runner=bad, engine=bad)
            for index, each in enumerate(report.artifacts)
        ),
        checks=tuple(
            dataclasses.replace(check, name=bad, artifact=f"2{bad}", runner=bad, sentence=bad)
            for check in report.checks
        ),
        notes=(bad,),
        versions={bad: bad},
        command=(bad,),
        created=bad,
        seconds={bad: 1.0},
    )
