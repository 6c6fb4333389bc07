"""Tables for the terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resnet_edge.reports.figures import kilobytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from resnet_edge.inspection import FileReport, TensorInfo
    from resnet_edge.models.spec import ModelSpec


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # A figure is read from its right end, a name from its left.
        name, _, alignment = column.partition(">")
        table.add_column(name.strip(), justify="right" if alignment else "left", no_wrap=name == columns[0])
    return table


def _row(table: Table, *cells: object) -> None:
    # Names come from the user's files: never let them be read as markup.
    table.add_row(*(escape(str(cell)) for cell in cells))


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def shape(extents: Iterable[object]) -> str:
    """A shape with open dimensions as ``N``."""
    return "x".join("N" if extent is None else str(extent) for extent in extents)


def show_models(specs: Iterable[ModelSpec]) -> None:
    """The registry."""
    table = _table("model", "parameters >", "MACs >", "input", "classes >", "weights on offer")
    for spec in specs:
        _row(
            table,
            spec.name,
            f"{spec.parameters:,}",
            _millions(spec.macs),
            shape(spec.input_shape),
            spec.classes,
            ", ".join(spec.weights) or "-",
        )
    Console().print(table)


def show_bundle(
    path: Path, manifest: Mapping[str, Any], *, seconds: Mapping[str, float] | None = None
) -> None:
    """A bundle: its artifacts with their proofs, its folds, its contract."""
    console = Console()
    model, source, result = manifest["model"], manifest["input"], manifest["output"]
    console.print(
        f"[bold]{escape(str(path))}[/]  {escape(model['name'])}: {_millions(model['parameters'])} "
        f"parameters, {_millions(model['macs'])} MACs, weights: {escape(model['weights'])}"
    )
    console.print(
        f"{source['name']} {shape(source['shape'])} {source['dtype']} -> "
        f"{result['name']} {shape(result['shape'])}; pixels: {escape(_contract(manifest))}"
    )
    table = _table("artifact", "size >", "proof")
    for artifact in manifest["artifacts"]:
        _row(table, artifact["path"], kilobytes(artifact["size"]), _evidence(artifact))
    console.print(table)
    for line in _folds(manifest["passes"]):
        console.print(escape(line))
    if seconds:
        spent = ", ".join(f"{name} {time:.1f}" for name, time in seconds.items() if time >= 0.05)
        console.print(f"[dim]seconds: {escape(spent)}[/]")


def _evidence(artifact: Mapping[str, Any]) -> str:
    """What running the artifact showed."""
    proof, parity = artifact["proof"], artifact["parity"]
    if proof:
        against = "Keras" if "Keras" in proof["reference"] else "the trained model"
        return f"max abs error {proof['max_abs_error']:.1e} against {against} (allowed {proof['limit']:.1e})"
    ratio = "equal outputs" if parity["sqnr_db"] is None else f"SQNR {parity['sqnr_db']:.1f} dB"
    return f"{parity['top1_agreement']:.1%} of {parity['images']} {parity['source']} images as float, {ratio}"


def _contract(manifest: Mapping[str, Any]) -> str:
    from resnet_edge.data.preprocessing import Preprocessing  # deferred: brings NumPy

    contract = Preprocessing.from_json(manifest["preprocessing"])
    text = f"{contract.name}, {contract.order}" if contract.channels == 3 else contract.name
    return f"0..255, {text} inside the artifacts" if manifest["fold_input"] else text


def _folds(passes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The batch norms in one line, and a line for each reason why some were kept."""
    lines = []
    for report in passes:
        norms = [change for change in report["changes"] if change["kind"] == "BatchNorm"]
        kept = [each for each in report["kept"] if each["kind"] == "BatchNorm"]
        if not norms and not kept:
            continue
        folded = sum(change["what"].startswith("folded") for change in norms)
        lowered = len(norms) - folded
        error = max((change["max_abs_error"] or 0.0 for change in norms), default=0.0)
        line = f"batch norms: {folded} folded (max abs error {error:.1e})"
        if lowered:
            line += f", {lowered} as one per-channel convolution each"
        lines.append(line)
        reasons = Counter(each["reason"] for each in kept)
        lines.extend(f"  kept {count}: {reason}" for reason, count in reasons.most_common(5))
    return lines


def show_file(path: Path, report: FileReport) -> None:
    """A model file of any origin."""
    console = Console()
    macs = "unknown" if report.macs is None else _millions(report.macs)
    console.print(
        f"[bold]{escape(str(path))}[/]  {report.format}, {escape(report.version)}, {kilobytes(report.size)}, "
        f"{_millions(report.parameters)} parameters, {macs} MACs"
    )
    if report.int8_mac_share is not None:
        console.print(f"{report.int8_mac_share:.1%} of the MACs in int8")
    for line in _compression(report):
        console.print(line)
    if report.producer:
        console.print(f"producer: {escape(report.producer)}")
    tensors = _table("", "name", "shape", "type", "quantization")
    for kind, infos in (("input", report.inputs), ("output", report.outputs)):
        for info in infos:
            _row(tensors, kind, info.name, shape(info.shape), info.dtype, _quantization(info))
    console.print(tensors)
    operators = _table("operator", "count >")
    for operator in report.operators:
        _row(operators, operator.name + (" (custom)" if operator.custom else ""), operator.count)
    console.print(operators)
    for note in report.notes:
        console.print(f"note: {escape(note)}")


def _compression(report: FileReport) -> Iterable[str]:
    """What gzip makes of the file, and of the weights what it can make use of."""
    if report.gzip_size is not None:
        yield f"{kilobytes(report.gzip_size)} under gzip, {report.size / report.gzip_size:.1f} times smaller"
    if report.weights:
        size = sum(figures.size for figures in report.weights)
        zeros = sum(figures.zeros for figures in report.weights) / size
        distinct = sorted(figures.distinct for figures in report.weights)
        middle = distinct[len(distinct) // 2]
        yield (
            f"{zeros:.1%} of the weights are zero; distinct values a tensor: {distinct[0]} to "
            f"{distinct[-1]}, {middle} in the middle"
        )


def _quantization(info: TensorInfo) -> str:
    if info.quantization is None:
        return "-"
    if len(info.quantization.scales) > 1:
        return f"{len(info.quantization.scales)} scales along axis {info.quantization.axis}"
    return f"scale {info.quantization.scales[0]:.6g}, zero point {info.quantization.zero_points[0]}"
