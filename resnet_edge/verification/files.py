"""Whether a bundle's files are what was written: by digest, and integer by integer against the spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge import bundle as bundles
from resnet_edge.converters import QuantizingConverter, load_converter
from resnet_edge.errors import ConversionFailedError, ModelRejectedError
from resnet_edge.quantization.readback import check
from resnet_edge.verification.embedded import embedded_differences
from resnet_edge.verification.report import Check

if TYPE_CHECKING:
    from resnet_edge.quantization.spec import Quantized
    from resnet_edge.verification.target import BundleTarget, Candidate


def check_files(target: BundleTarget) -> list[Check]:
    """Compare artifacts, specs and integers with what was written, and every artifact with its spec.

    What an artifact says of itself is compared with the manifest, too.

    A changed file is read all the same: what changed in it says more than that it did.
    """
    digests: dict[str, str | None] = {}
    return [_check(target, candidate, digests) for candidate in target.candidates]


def _check(target: BundleTarget, candidate: Candidate, digests: dict[str, str | None]) -> Check:
    """One artifact.

    Args:
        target: The bundle.
        candidate: The artifact.
        digests: Gathers digests by file, None for one that is gone: a recipe's formats share two files.
    """
    stated = embedded_differences(candidate.path, candidate.format, target.manifest)
    found = [*_changed(target, candidate, digests), *_differences(target, candidate), *stated]
    if not found:
        held = f"; every scale and integer is that of {candidate.record.spec}" if _has_spec(candidate) else ""  # type: ignore[union-attr]
        sentence = f"{candidate.name} is as it was written (SHA-256){held}"
    else:
        sentence = f"{'; '.join(found)}. Export or quantize again, and find out what changed the file"
    return Check(
        name="files",
        artifact=candidate.name,
        runner="",
        verdict="fail" if found else "pass",
        sentence=sentence,
    )


def _has_spec(candidate: Candidate) -> bool:
    return candidate.record is not None and bool(candidate.record.spec)


def _changed(target: BundleTarget, candidate: Candidate, digests: dict[str, str | None]) -> list[str]:
    """What became of the files whose digest is another than the manifest's."""
    record = candidate.record
    if record is None:
        return []
    wanted = {record.path: record.sha256}
    if record.spec:
        wanted |= {record.spec: record.spec_sha256, record.integers: record.integers_sha256}
    for name in wanted.keys() - digests.keys():
        path = target.folder / name
        digests[name] = bundles.digest(path) if path.exists() else None
    return [
        f"{name} {'was changed' if digests[name] else 'is gone'} after it was written"
        for name, digest in wanted.items()
        if digests[name] != digest
    ]


def _differences(target: BundleTarget, candidate: Candidate) -> list[str]:
    """What the artifact holds that its spec does not say."""
    if not _has_spec(candidate):
        return []
    converter = load_converter(candidate.format)
    if not isinstance(converter, QuantizingConverter):
        return []
    try:
        quantized: Quantized | None = target.quantized(candidate)
        if quantized is not None:
            check(converter.read_back(candidate.path, quantized), quantized, where=candidate.name)
    except (ConversionFailedError, ModelRejectedError) as error:
        return [f"{error.what}: {error.found}" if error.found else error.what]
    return []
