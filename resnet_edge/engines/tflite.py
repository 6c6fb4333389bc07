"""A .tflite artifact in LiteRT: with its default delegate (XNNPACK), or on its reference kernels."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, Self

from resnet_edge.engines.integers import IntegerForm
from resnet_edge.engines.signature import Signature
from resnet_edge.errors import DependencyMissingError, ModelRejectedError
from resnet_edge.quiet import without_lines
from resnet_edge.runners.agent import tflite_tensor

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from resnet_edge.engines import Kernels

_DELEGATE_NOTICE = re.compile(rb"INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.\n")
"""What LiteRT writes to standard error for every model; it offers no switch for it."""


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
        self._signature = tflite_signature(
            [tflite_tensor(tensor) for tensor in inputs],
            [tflite_tensor(tensor) for tensor in outputs],
            artifact,
        )
        self._allocated = int(inputs[0]["shape"][0])
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        details = self._interpreter.get_tensor_details() if exposed else []
        self._exposed = {each["name"]: each["index"] for each in details if each["name"] in exposed}
        self.tensors: dict[str, NDArray[Any]] = {}

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (N, classes) for model inputs (N, height, width, channels).

        Raises:
            DataRejectedError: The images do not have the artifact's shape, or there are none.
        """
        return self._signature.run(images, self._run_batch)

    def _run_batch(self, batch: NDArray[Any]) -> NDArray[Any]:
        if len(batch) != self._allocated:
            self._interpreter.resize_tensor_input(self._input, batch.shape)
            self._interpreter.allocate_tensors()
            self._allocated = len(batch)
        self._interpreter.set_tensor(self._input, batch)
        self._interpreter.invoke()
        self.tensors = {name: self._interpreter.get_tensor(index) for name, index in self._exposed.items()}
        outputs: NDArray[Any] = self._interpreter.get_tensor(self._output)
        return outputs

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


def tflite_signature(
    inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]], artifact: Path
) -> Signature:
    """What a .tflite file takes and gives.

    Args:
        inputs: Its tensors, as :attr:`resnet_edge.runners.agent.Model.details` has them.
        outputs: The same.
        artifact: The file, for errors.

    Raises:
        ModelRejectedError: It does not take one image and give one output.
    """
    if not (len(inputs) == len(outputs) == 1 and _is_image(inputs[0]) and _is_number(outputs[0])):
        raise ModelRejectedError(
            "the model does not take one image and give one output",
            where=str(artifact),
            found="; ".join(
                f"{tensor['name']} {tensor['dtype']} {tensor['shape']}" for tensor in [*inputs, *outputs]
            ),
            next_step="export a model with a single image input and a single output",
        )
    batch, *shape = inputs[0]["shape"]
    return Signature(
        image_shape=tuple(shape),
        batch=batch,
        input_form=_integer_form(inputs[0]),
        output_form=_integer_form(outputs[0]),
    )


def _is_image(tensor: Mapping[str, Any]) -> bool:
    shape = tensor["shape"]
    return len(shape) == 4 and all(shape[1:]) and _is_number(tensor)


def _is_number(tensor: Mapping[str, Any]) -> bool:
    """Whether a tensor holds real numbers, or integers that stand for some."""
    return tensor["dtype"] == "float32" or _integer_form(tensor) is not None


def _integer_form(tensor: Mapping[str, Any]) -> IntegerForm | None:
    """How a tensor's integers are to be read; None where it holds something else."""
    if tensor["dtype"] not in ("int8", "uint8", "int16") or not tensor["scale"] > 0:
        return None
    return IntegerForm(dtype=tensor["dtype"], scale=tensor["scale"], zero_point=tensor["zero_point"])
