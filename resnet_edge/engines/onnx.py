"""ONNX files in ONNX Runtime, on the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from resnet_edge.engines.integers import IntegerForm
from resnet_edge.engines.signature import Signature
from resnet_edge.errors import DependencyMissingError, ModelRejectedError
from resnet_edge.runners.agent import onnx_tensor

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType, TracebackType

    from numpy.typing import NDArray

LAYOUT_KEY = "layout"
"""Names the entry of a file's metadata that says how its image is laid out: ``nchw`` or ``nhwc``."""

QUANTIZATION_KEY = "quantization"
"""Names the entry that says what a file's integer input and output stand for: JSON, by tensor name ``scale``
and ``zero_point``."""

_IMAGE_CHANNELS = (1, 3, 4)
_ERRORS_ONLY = 3


class OnnxEngine:
    """An ONNX file with one image input and one output, ours or another tool's.

    Integer inputs and outputs are converted from and to real numbers, as the file's metadata says.

    Images are NHWC here; a file that takes NCHW gets them transposed. Which of the two it takes is read from
    its metadata. Where that does not say, the dimension that is a number of image channels (1, 3, 4) does;
    where both or none could be, it is NCHW, ONNX's own convention.

    Args:
        artifact: The ``.onnx`` file.
        threads: Threads that ONNX Runtime uses within an operator.
        exposed: Names of tensors to keep of every run. ONNX Runtime may then fuse fewer operators.

    Attributes:
        tensors: The exposed ones of the last run, as the file has them; without those that it has not.

    Raises:
        DependencyMissingError: ONNX Runtime is not installed.
        ModelRejectedError: ONNX Runtime does not accept the file, it takes no single image, or it does not
            say what its integers stand for.
    """

    def __init__(self, artifact: Path, *, threads: int = 1, exposed: Collection[str] = ()) -> None:
        model = _with_outputs(artifact, exposed) if exposed else None
        self._session = open_session(artifact, threads=threads, model=model)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._exposed = [tensor.name for tensor in outputs[1:] if tensor.name in exposed]
        self.tensors: dict[str, NDArray[Any]] = {}
        outputs = outputs[: len(outputs) - len(self._exposed)]
        self._input = inputs[0].name
        self._signature = onnx_signature(
            [onnx_tensor(tensor) for tensor in inputs],
            [onnx_tensor(tensor) for tensor in outputs],
            self._session.get_modelmeta().custom_metadata_map,
            artifact,
        )

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels), in the file's own batches.

        Raises:
            DataRejectedError: The images do not have the file's shape.
        """
        return self._signature.run(images, self._run_batch)

    def _run_batch(self, batch: NDArray[Any]) -> NDArray[Any]:
        output, *inner = self._session.run(None, {self._input: batch})
        self.tensors = dict(zip(self._exposed, inner, strict=True))
        return np.asarray(output)

    def close(self) -> None:
        """Free the runtime's memory."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_session(artifact: Path, *, threads: int, model: bytes | None = None) -> Any:
    """ONNX Runtime's session, with its graph optimizations.

    Args:
        artifact: The ``.onnx`` file.
        threads: Within an operator.
        model: What to open in the file's place: its bytes, changed.

    Raises:
        DependencyMissingError: ONNX Runtime is not installed.
        ModelRejectedError: ONNX Runtime does not accept the file.
    """
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        return runtime.InferenceSession(model or artifact, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no other base class
        raise ModelRejectedError(
            "ONNX Runtime does not accept the file",
            where=str(artifact),
            found=str(error).strip(),
            next_step="look into it with `resnet-edge inspect`, or export it again",
        ) from error


def _with_outputs(artifact: Path, names: Collection[str]) -> bytes:
    """The file with some of its inner tensors as outputs behind its own."""
    import onnx

    model = onnx.load(artifact)
    model.graph.output.extend(value for value in model.graph.value_info if value.name in names)
    changed: bytes = model.SerializeToString()
    return changed


def _runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyMissingError(
            "ONNX Runtime is not installed",
            found=str(error),
            next_step="pip install onnxruntime",
        ) from error
    module: ModuleType = onnxruntime
    return module


def onnx_signature(
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    metadata: Mapping[str, str],
    artifact: Path,
) -> Signature:
    """What an ONNX file takes and gives.

    Args:
        inputs: Its tensors, as :attr:`resnet_edge.runners.agent.Model.details` has them.
        outputs: The same.
        metadata: Of the file.
        artifact: The file, for errors.

    Raises:
        ModelRejectedError: It does not take one image and give one output, or does not say what its integers
            stand for.
    """
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or len(outputs) != 1:
        raise ModelRejectedError(
            "the model does not take one image and give one output",
            where=str(artifact),
            found="; ".join(f"{tensor['name']} {tensor['shape']}" for tensor in [*inputs, *outputs]),
            next_step="export a model with a single image input and a single output",
        )
    batch, *shape = inputs[0]["shape"]
    nchw = takes_nchw(metadata, shape)
    return Signature(
        image_shape=(*shape[1:], shape[0]) if nchw else tuple(shape),
        batch=batch,
        nchw=nchw,
        input_form=_integer_form(inputs[0], metadata, artifact),
        output_form=_integer_form(outputs[0], metadata, artifact),
    )


def takes_nchw(metadata: Mapping[str, str], shape: Sequence[int | str]) -> bool:
    """Whether an image of ``shape``, the batch left out, has its channels first."""
    if LAYOUT_KEY in metadata:
        return metadata[LAYOUT_KEY] == "nchw"
    return shape[0] in _IMAGE_CHANNELS or shape[-1] not in _IMAGE_CHANNELS


def _integer_form(
    tensor: Mapping[str, Any], metadata: Mapping[str, str], artifact: Path
) -> IntegerForm | None:
    """How the integers of an input or output are to be read; None where there are none."""
    dtype, name = tensor["dtype"], tensor["name"]
    if dtype not in ("int8", "uint8"):
        return None
    try:
        form = json.loads(metadata[QUANTIZATION_KEY])[name]
        return IntegerForm(dtype=dtype, scale=float(form["scale"]), zero_point=int(form["zero_point"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelRejectedError(
            f"the file does not say what the integers of {name!r} stand for",
            where=str(artifact),
            found=f"{type(error).__name__}: {error}",
            allowed=f"metadata {QUANTIZATION_KEY!r} with a scale and a zero_point of {name!r}",
            next_step="export the model again, or with --io float32",
        ) from error
