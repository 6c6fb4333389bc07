"""The four verbs as functions: what the command line calls, and the Python API."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resnet_edge import bundle as bundles
from resnet_edge import exporting, quantizing, verifying
from resnet_edge.errors import UsageError
from resnet_edge.finetuning.states import forget_states
from resnet_edge.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from resnet_edge.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from resnet_edge.finetuning.options import FinetuneOptions
    from resnet_edge.verification.report import Report


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Everything ``export`` can be told besides the model and the place.

    Attributes:
        formats: Names of installed converters; empty for all of them.
        weights: A file, ``imagenet`` or ``fashion-mnist``, for a registry model.
        input_shape: (height, width, channels).
        classes: Number of classes of a registry model.
        width: Factor on a registry model's channels.
        shortcut: ``A`` or ``B``, for the CIFAR families.
        preprocess: The contract between pixels and the model's input; None for the weights' own.
        labels: Text file, one class name a line.
        batch: Images a run; None for an open batch.
        fold: Whether batch norms are folded.
        fold_input: Whether the contract's normalization goes into the artifacts.
        opset: ONNX operator set.
        onnx_layout: Layout of the ONNX file's input.
        custom_objects: The user's Python file with the classes that the model file needs.
        allow_unsafe_code: Whether code inside the model file may run.
        command: What the manifest says was called.
    """

    formats: tuple[str, ...] = ()
    weights: str | None = None
    input_shape: tuple[int, int, int] | None = None
    classes: int | None = None
    width: float = 1.0
    shortcut: str | None = None
    preprocess: str | None = None
    labels: Path | None = None
    batch: int | None = 1
    fold: bool = True
    fold_input: bool = False
    opset: int = 17
    onnx_layout: Literal["nchw", "nhwc"] = "nchw"
    custom_objects: Path | None = None
    allow_unsafe_code: bool = False
    command: tuple[str, ...] = ()

    def refuse(self, names: Iterable[str], what: str) -> None:
        """See that none of the options ``names`` was given, because they mean nothing for ``what``.

        Raises:
            UsageError: One was.
        """
        default = ExportOptions()
        for name in names:
            if getattr(self, name) != getattr(default, name):
                option = "no-fold" if name == "fold" else name.replace("_", "-")
                raise UsageError(f"--{option} does not go with {what}", next_step="leave the option out")


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Everything ``quantize`` can be told besides the model and the place.

    Attributes:
        recipes: Names of recipes; several share one calibration.
        recipe_file: TOML file with recipes of the user's own.
        calibration: ``fashion-mnist``, a ``.npz`` or a folder of classes; None for the shipped model's own.
        samples: Images to calibrate on; the next ones are held back for the closing parity run.
        observer: How a range is chosen from what was seen.
        bias_correction: Whether biases take up the mean error of rounded weights; None: as the recipe says.
        rounding: ``nearest``, or ``learned``: each layer's integers are chosen for the inputs that it gets;
            None: learned for networks so small that it costs a second or two.
        strict: Whether a preprocessing that does not fit the model is an error.
        io: Element type of the artifacts' input and output.
        onnx_activations: Element type of activations in ONNX files.
        formats: Names of formats; empty for those of the bundle.
        overrides: Exceptions by layer name, ``PATTERN=RULE``.
    """

    recipes: tuple[str, ...]
    recipe_file: Path | None = None
    calibration: str | None = None
    samples: int = 200
    observer: str = "mse"
    bias_correction: bool | None = None
    rounding: Literal["nearest", "learned"] | None = None
    strict: bool = False
    io: Literal["float32", "int8", "uint8"] = "float32"
    onnx_activations: Literal["uint8", "int8"] = "uint8"
    formats: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Everything ``verify`` can be told besides the bundle or file.

    Attributes:
        against: The float model of a file that is no bundle.
        artifacts: Names of artifacts of a bundle, with wildcards; empty for all.
        data: ``fashion-mnist``, a ``.npz`` or a folder of classes; None for the images held back.
        samples: Images to use, every class in its share; None for all.
        runners: Where to run.
        require: Runners and runtimes that must be there.
        kernels: What computes a .tflite: XNNPACK, or LiteRT's reference kernels.
        threads: Within an operator; None for all cores.
        max_error: Largest absolute difference of an output.
        min_agreement: Percent of images with the float prediction.
        min_sqnr: dB.
        max_drop: Percentage points of top-1 accuracy.
        min_speedup: Times as fast as float32.
        confidence: Of intervals and of decisions on a sample.
        layers: Whether every layer is compared.
        bisect: Folder for a minimal reproduction of the worst operator.
        latency: Whether times are measured.
        command: What the report says was called.
    """

    against: str | None = None
    artifacts: tuple[str, ...] = ()
    data: str | None = None
    samples: int | None = None
    runners: tuple[str, ...] = ("local",)
    require: tuple[str, ...] = ()
    kernels: Literal["xnnpack", "reference"] = "xnnpack"
    threads: int | None = None
    max_error: float | None = None
    min_agreement: float | None = None
    min_sqnr: float | None = None
    max_drop: float | None = None
    min_speedup: float | None = None
    confidence: float = 0.95
    layers: bool = False
    bisect: Path | None = None
    latency: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished export or quantization.

    Attributes:
        bundle: The folder.
        manifest: What it holds.
        seconds: Wall-clock time by stage.
    """

    bundle: Path
    manifest: Manifest
    seconds: Mapping[str, float] = field(default_factory=dict)


def export(
    model: Any, bundle: str | Path, options: ExportOptions | None = None, stages: Stages | None = None
) -> Result:
    """Export a model as a bundle: folded, written in every format asked for, and proven against Keras.

    Args:
        model: A registry name, a ``.keras`` or ``.h5`` file, or a ``keras.Model``.
        bundle: The folder to write; an older bundle there is replaced as a whole.
        options: Everything else.
        stages: Times the stages and may show them.

    Raises:
        UsageError: The options or the place make no sense.
        ModelRejectedError: The model, its weights or a layer cannot be used.
        ConversionFailedError: A file could not be written, or computes something else than the model; nothing
            is left behind.
    """
    options, stages, destination = options or ExportOptions(), stages or Stages(), Path(bundle)
    bundles.check_destination(destination)
    prepared = exporting.prepare(model, options, stages)
    with bundles.writing(destination) as folder:
        manifest = exporting.write(prepared, folder, stages)
        write_manifest(folder, manifest)
    return Result(bundle=destination, manifest=manifest, seconds=stages.seconds)


def quantize(
    model: Any,
    bundle: str | Path | None,
    options: QuantizeOptions,
    export_options: ExportOptions | None = None,
    stages: Stages | None = None,
) -> Result:
    """Add quantized artifacts to a bundle, or make one from a model first.

    Args:
        model: A bundle, or whatever :func:`export` takes.
        bundle: The folder to write; None to change the bundle ``model`` in place.
        options: Recipes, calibration and the rest.
        export_options: For a model that is no bundle.
        stages: Times the stages and may show them.

    Raises:
        UsageError: The options make no sense; nothing was done.
        ModelRejectedError: The model or an operator cannot be used.
        DataRejectedError: The calibration images cannot be used.
        ConversionFailedError: A file could not be written, or holds other integers than its spec.
        GateFailedError: A quantized model has collapsed. Nothing was written.
    """
    stages, export_options = stages or Stages(), export_options or ExportOptions()
    recipes = quantizing.choose_recipes(options)
    source = bundles.bundle_at(model)
    if source is not None:
        names = [each.name for each in fields(export_options) if each.name not in ("formats", "command")]
        export_options.refuse(names, "a bundle, which has its own")
    elif isinstance(model, str | Path) and (Path(model) / MANIFEST_NAME).exists():
        read_manifest(Path(model))  # raises: a damaged bundle is no model either
    if bundle is None and source is None:
        raise UsageError("a model that is no bundle needs an output folder", where="-o BUNDLE")
    weights = export_options.weights if source is None else read_manifest(source).model.weights
    calibration = quantizing.choose_calibration(recipes, options, weights)
    destination = Path(bundle if bundle is not None else model)
    bundles.check_destination(destination)
    begin = _begin(source or exporting.prepare(model, export_options, stages), destination, stages)
    with bundles.writing(destination) as folder:
        manifest = begin(folder)
        quantizer = quantizing.Quantizer(folder=folder, manifest=manifest, options=options, stages=stages)
        manifest = quantizer.run(recipes, calibration)
        write_manifest(folder, manifest)
    return Result(bundle=destination, manifest=manifest, seconds=stages.seconds)


def verify(
    target: str | Path,
    options: VerifyOptions | None = None,
    export_options: ExportOptions | None = None,
    stages: Stages | None = None,
) -> Report:
    """Say whether exported files may ship: run them beside the user's float model, and compare.

    Args:
        target: A bundle, or a .tflite or .onnx file of any tool with ``against``.
        options: Data, runners, gates and the rest.
        export_options: Weights, preprocessing and the like of the model ``against``.
        stages: Times the stages and may show them.

    Returns:
        Every figure and every verdict; ``report.exit_code`` is the command's.

    Raises:
        UsageError: The options make no sense.
        ModelRejectedError: The bundle, file or float model cannot be used.
        DataRejectedError: The images or labels cannot be used.
        DependencyMissingError: No artifact could be run.
    """
    from resnet_edge.verification.gates import Limits
    from resnet_edge.verification.target import open_target

    options, stages, export_options = (
        options or VerifyOptions(),
        stages or Stages(),
        export_options or ExportOptions(),
    )
    limits = Limits(
        max_error=options.max_error,
        min_agreement=options.min_agreement,
        min_sqnr=options.min_sqnr,
        max_drop=options.max_drop,
        min_speedup=options.min_speedup,
        confidence=options.confidence,
    )
    verifying.check_options(options)
    with stages.stage("open the bundle"):
        opened = open_target(target, options.against, options.artifacts, export_options)
    return verifying.Verification(opened, options, limits, stages).run()


def finetune(
    bundle: str | Path, destination: str | Path, options: FinetuneOptions, stages: Stages | None = None
) -> Result:
    """Train the model of a bundle further, and write what it has become as a new bundle.

    An interrupted training goes on from its last epoch when it is called again in the same way; what it needs
    for that is in a hidden folder beside the destination, until the new bundle is there.

    Args:
        bundle: The bundle; it is left as it is.
        destination: The bundle to make.
        options: Method, data and the rest.
        stages: Times the stages and may show them.

    Raises:
        UsageError: The options make no sense, or the bundle has not what the method needs.
        ModelRejectedError: The bundle or an operator cannot be used.
        DataRejectedError: The images or labels cannot be used.
        ConversionFailedError: The training diverged, or a file is not what was trained.
        GateFailedError: A quantized model has collapsed; no bundle is left behind.
    """
    options.check()
    source, target, stages = Path(bundle), Path(destination), stages or Stages()
    read_manifest(source)  # raises: it is no bundle
    if target.absolute() == source.absolute():
        raise UsageError(
            "a training makes a new bundle", where=f"-o {destination}", next_step="give another folder"
        )
    bundles.check_destination(target)
    with stages.stage("load TensorFlow"):
        from resnet_edge.finetuning.steps import Finetuning
    finetuning = Finetuning(source=source, destination=target, options=options, stages=stages)
    trained = finetuning.train()
    with bundles.writing(target) as folder:
        manifest = finetuning.write(folder, trained)
        write_manifest(folder, manifest)
    forget_states(target)
    return Result(bundle=target, manifest=manifest, seconds=stages.seconds)


def _begin(start: Path | exporting.Prepared, destination: Path, stages: Stages) -> Callable[[Path], Manifest]:
    """How a new folder gets the float model: from a bundle, or written now."""
    if isinstance(start, Path):
        replaced = destination.exists() and destination.samefile(start)
        return partial(bundles.adopt, start, replaced=replaced)
    return lambda folder: exporting.write(start, folder, stages)
