"""A .tflite artifact in LiteRT: with its default delegate (XNNPACK), or on its reference kernels."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from resnet_edge.engines.batching import run_in_batches
from resnet_edge.engines.integers import IntegerForm
from resnet_edge.errors import DependencyMissingError, ModelRejectedError
from resnet_edge.quiet import without_lines

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

_DELEGATE_NOTICE = re.compile(rb"INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.\n")
"""What LiteRT writes to standard error for every model; it offers no switch for it."""

Kernels: TypeAlias = Literal["xnnpack", "reference"]
"""What computes: XNNPACK, with LiteRT's optimized kernels for what it leaves; or the reference kernels."""


class TFLiteEngine:
    """A .tflite file that takes one NHWC image and gives one output, ours or another tool's.

    Where these are integers, real numbers are quantized and dequantized with the file's own scales.

    Args:
        artifact: The ``.tflite`` file.
        threads: Threads that LiteRT and XNNPACK use within an operator.
        kernels: What computes; the reference kernels are slow, and the same on every machine.
        exposed: Names of tensors to keep of every run. All others are then kept too, which costs memory and
            was never seen to change a result.

    Attributes:
        tensors: The exposed ones of the last run, as the file has them; without those that it has not.

    Raises:
        DependencyMissingError: ai-edge-litert is not installed.
        ModelRejectedError: LiteRT does not accept the file, or it takes no single image.
    """

    def __init__(
        self,
        artifact: Path,
        *,
        threads: int = 1,
        kernels: Kernels = "xnnpack",
        exposed: Collection[str] = (),
    ) -> None:
        self._interpreter = open_interpreter(
            artifact, threads=threads, kernels=kernels, all_tensors=bool(exposed)
        )
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if not (len(inputs) == len(outputs) == 1 and _is_image(inputs[0]) and _is_number(outputs[0])):
            raise ModelRejectedError(
                "the model does not take one image and give one output",
                where=str(artifact),
                found="; ".join(f"{tensor['name']} {_form(tensor)}" for tensor in [*inputs, *outputs]),
                next_step="export a model with a single image input and a single output",
            )
        batch, *shape = inputs[0]["shape_signature"].tolist()
        self._batch = None if batch == -1 else batch
        self._image_shape = tuple(shape)
        self._allocated = int(inputs[0]["shape"][0])
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self._input_form, self._output_form = _integer_form(inputs[0]), _integer_form(outputs[0])
        details = self._interpreter.get_tensor_details() if exposed else []
        self._exposed = {each["name"]: each["index"] for each in details if each["name"] in exposed}
        self.tensors: dict[str, NDArray[Any]] = {}

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels).

        Raises:
            DataRejectedError: The images do not have the artifact's shape, or there are none.
        """
        return run_in_batches(images, image_shape=self._image_shape, batch=self._batch, run=self._run_batch)

    def _run_batch(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(images) != self._allocated:
            self._interpreter.resize_tensor_input(self._input, images.shape)
            self._interpreter.allocate_tensors()
            self._allocated = len(images)
        given = images if self._input_form is None else self._input_form.quantized(images)
        self._interpreter.set_tensor(self._input, given)
        self._interpreter.invoke()
        self.tensors = {name: self._interpreter.get_tensor(index) for name, index in self._exposed.items()}
        outputs: NDArray[Any] = self._interpreter.get_tensor(self._output)
        return outputs if self._output_form is None else self._output_form.real(outputs)

    def close(self) -> None:
        """Free the runtime's memory."""
        self._interpreter = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_interpreter(artifact: Path, *, threads: int, kernels: Kernels, all_tensors: bool = False) -> Any:
    """LiteRT's interpreter with memory for the file's own batch.

    Args:
        artifact: The ``.tflite`` file.
        threads: Within an operator.
        kernels: What computes.
        all_tensors: Keep every tensor of a run, instead of those of the file's ends only.

    Raises:
        DependencyMissingError: ai-edge-litert is not installed.
        ModelRejectedError: LiteRT does not accept the file.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise DependencyMissingError(
            "LiteRT is not installed",
            where=str(artifact),
            found=str(error),
            next_step="pip install ai-edge-litert",
        ) from error
    resolvers = {"xnnpack": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}
    try:
        with without_lines(_DELEGATE_NOTICE), warnings.catch_warnings():
            # Keeping every tensor costs memory, as it warns; that is what it is asked for.
            warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
            interpreter = Interpreter(
                model_path=str(artifact),
                num_threads=threads,
                experimental_op_resolver_type=resolvers[kernels],
                experimental_preserve_all_tensors=all_tensors,
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelRejectedError(
            "LiteRT does not accept the file",
            where=str(artifact),
            found=str(error).strip(),
            next_step="look into it with `resnet-edge inspect`, or export it again",
        ) from error
    return interpreter


def _is_image(tensor: dict[str, Any]) -> bool:
    shape = tensor["shape_signature"]
    return len(shape) == 4 and min(shape[1:]) > 0 and _is_number(tensor)


def _is_number(tensor: dict[str, Any]) -> bool:
    """Whether a tensor holds real numbers, or integers that stand for some."""
    return tensor["dtype"] is np.float32 or _integer_form(tensor) is not None


def _integer_form(tensor: dict[str, Any]) -> IntegerForm | None:
    """How a tensor's integers are to be read; None where it holds something else."""
    scale, zero_point = tensor["quantization"]
    if tensor["dtype"] not in (np.int8, np.uint8, np.int16) or not scale > 0:
        return None
    return IntegerForm(dtype=tensor["dtype"], scale=scale, zero_point=zero_point)


def _form(tensor: dict[str, Any]) -> str:
    return f"{np.dtype(tensor['dtype']).name} {tensor['shape_signature'].tolist()}"
