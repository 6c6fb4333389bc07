"""What a converter is, and how the installed ones are found.

A converter writes one format. Ours live in the package ``resnet_edge_converters``; any other distribution
plugs in the same way, by an entry point in the group ``resnet_edge.converters`` whose name is the format's
name on the command line and whose object is a class that satisfies :class:`Converter`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from resnet_edge.errors import ConversionFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resnet_edge.engines import Engine
    from resnet_edge.graph import Graph
    from resnet_edge.quantization.readback import FileContent
    from resnet_edge.quantization.spec import Quantized

GROUP = "resnet_edge.converters"


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """How a file is laid out; nothing here changes what it computes.

    Attributes:
        batch: Images a run; None leaves it open (dynamic).
        opset: ONNX operator set.
        onnx_layout: Layout of the ONNX file's ``image``.
        onnx_activations: Element type of a quantized ONNX file's activations.
        metadata: Texts kept inside the file (``labels`` one a line, ``preprocessing`` as JSON, ...).
    """

    batch: int | None = 1
    opset: int = 17
    onnx_layout: Literal["nchw", "nhwc"] = "nchw"
    onnx_activations: Literal["uint8", "int8"] = "uint8"
    metadata: Mapping[str, str] = field(default_factory=dict)


class Converter(Protocol):
    """Writes a graph as one file (or folder) of one format.

    A converter that also writes quantized graphs is a :class:`QuantizingConverter`.
    """

    suffix: str
    """Appended to ``NAME-PRECISION``: ``.tflite``, ``.onnx``, ``-savedmodel``."""

    def convert(self, graph: Graph, destination: Path, settings: ConversionSettings) -> None:
        """Write ``graph`` to ``destination``, which does not exist yet.

        Raises:
            ConversionFailedError: The format cannot express the graph; names the node.
            OSError: The file cannot be written.
        """
        ...

    def open(self, artifact: Path, *, threads: int = 1) -> Engine:
        """The artifact in its runtime, to prove what was written.

        Raises:
            DependencyMissingError: The runtime is not installed.
            ModelRejectedError: The runtime does not accept the file.
        """
        ...


@runtime_checkable
class QuantizingConverter(Converter, Protocol):
    """A converter that writes what a quantization spec says, and can read back what it wrote."""

    recipes: frozenset[str]
    """The built-in recipes that it can express."""

    def convert(
        self,
        graph: Graph,
        destination: Path,
        settings: ConversionSettings,
        quantized: Quantized | None = None,
    ) -> None:
        """Write ``graph``, or ``quantized`` where it is given; decides no scale and no integer.

        Raises:
            ConversionFailedError: The format cannot express the graph; names the node.
            OSError: The file cannot be written.
        """
        ...

    def read_back(self, artifact: Path, quantized: Quantized) -> FileContent:
        """The integers and scales that the file holds, by the spec's names.

        Raises:
            ModelRejectedError: The file cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One entry point: a converter, or the reason why it cannot be used."""

    format: str
    distribution: str
    converter: Converter | None
    error: str = ""


def installed_formats() -> dict[str, EntryPoint]:
    """The formats on offer by name, without loading a converter."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def load_plugin(point: EntryPoint) -> Plugin:
    """Load one entry point; a failure becomes the plugin's ``error`` and harms no other."""
    distribution = point.dist.name if point.dist else "unknown distribution"
    try:
        converter: Converter = point.load()()
        for name in ("suffix", "convert", "open"):
            getattr(converter, name)
    except Exception as error:  # noqa: BLE001 - whatever a third party's import raises is its plugin's error
        reason = f"{type(error).__name__}: {error}"
        return Plugin(format=point.name, distribution=distribution, converter=None, error=reason)
    return Plugin(format=point.name, distribution=distribution, converter=converter)


def load_converter(name: str) -> Converter:
    """The converter of a format.

    Raises:
        UsageError: No installed distribution offers the format.
        ConversionFailedError: The plugin that offers it does not load.
    """
    formats = installed_formats()
    if name not in formats:
        raise UsageError(
            f"unknown format {name!r}",
            allowed=", ".join([*formats, "all"]),
            next_step="pick one of these, or install a distribution that offers the format",
        )
    plugin = load_plugin(formats[name])
    if plugin.converter is None:
        raise ConversionFailedError(
            f"the converter for {name!r} does not load",
            where=f"distribution {plugin.distribution}, entry point {formats[name].value}",
            found=plugin.error,
            next_step="mend or uninstall that distribution; the other formats are not affected",
        )
    return plugin.converter
