"""The float graph in ONNX Runtime, with every node's tensor as an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnet_edge.converters import ConversionSettings
from resnet_edge.graph import INPUT_NAME
from resnet_edge.memory import give_back
from resnet_edge.temporary import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from resnet_edge.graph import Graph
    from resnet_edge.graph.geometry import Shape

_ERRORS_ONLY = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTensor:
    """A node's tensor as ONNX Runtime has it in memory.

    Attributes:
        values: float32 (N, ...): maps as (N, channels, height, width), vectors as (N, features).
        channel_axis: The dimension that the graph has last.
    """

    values: NDArray[np.float32]
    channel_axis: int


class ObservedSession:
    """Runs a graph that converters take, with an open batch.

    Args:
        graph: The float graph.
        threads: Threads within an operator.
    """

    def __init__(self, graph: Graph, threads: int) -> None:
        # Deferred: these imports take long, and nothing but calibration needs all of them.
        import onnxruntime

        from resnet_edge_converters.onnx import OnnxConverter
        from resnet_edge_converters.onnx_layout import channel_first_vectors

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        # A plan for the memory of inner tensors is a block as large as all of them, beside the outputs.
        options.enable_mem_pattern = False
        # Between runs, threads that wait in a busy loop would take the processor from those that observe.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._tensors = {node.name: graph.tensor_name(node.name) for node in graph.nodes[1:]}
        self._channel_first: Mapping[str, Shape] = channel_first_vectors(graph)
        with temporary_folder() as folder:
            path = folder / "observed.onnx"
            OnnxConverter().convert(graph, path, ConversionSettings(batch=None))
            _add_outputs(path, [name for name in self._tensors.values() if name != graph.output_name])
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        give_back()  # the file's content, which the session has rearranged

    def run(self, images: NDArray[np.float32]) -> dict[str, StoredTensor]:
        """Every node's tensor by the node's name, for model inputs (N, height, width, channels)."""
        image = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        outputs = self._session.run(list(self._tensors.values()), {INPUT_NAME: image})
        tensors = {INPUT_NAME: StoredTensor(values=image, channel_axis=1)}
        for name, values in zip(self._tensors, outputs, strict=True):
            if name in self._channel_first:
                height, width, channels = self._channel_first[name]
                maps = values.reshape(-1, channels, height, width)
                values = maps.transpose(0, 2, 3, 1).reshape(values.shape)
            axis = 1 if values.ndim == 4 else values.ndim - 1
            tensors[name] = StoredTensor(values=values, channel_axis=axis)
        return tensors


def _add_outputs(path: Path, tensors: list[str]) -> None:
    """Make inner tensors outputs of an ONNX file, without reading it.

    Protocol Buffers join messages that are written one after the other: of a field that occurs twice, lists
    are concatenated and messages joined in turn ("Encoding", "Last One Wins" in their documentation).
    """
    from onnx import GraphProto, ModelProto, TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors]
    with path.open("ab") as file:
        file.write(ModelProto(graph=GraphProto(output=values)).SerializeToString())
