"""The selftest finds what it injects, and would notice a verification that does not."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import pytest

from resnet_edge import bundle as bundles
from resnet_edge.errors import GateFailedError
from resnet_edge.manifest import read_manifest
from resnet_edge.quantizing import HELD_BACK_NAME
from resnet_edge.stages import Stages
from resnet_edge.verification import selftest
from resnet_edge.verification.faults import FAULTS
from resnet_edge.verification.specimen import build_specimen
from tests.command_line import run


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return build_specimen(tmp_path_factory.mktemp("specimen"), Stages())


@pytest.fixture
def examine(healthy, tmp_path):
    """What the selftest finds of one fault."""
    copy = shutil.copytree(healthy, tmp_path / "healthy")
    return lambda fault: selftest._examine(fault, copy)


def test_there_are_faults_of_every_kind():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 10
    assert {fault.sealed for fault in FAULTS} == {True, False}
    assert {bool(fault.layer) for fault in FAULTS} == {True, False}
    checks = {fault.check for fault in FAULTS}
    assert checks == {"", "files", "baseline", "finite", "max-error", "sqnr"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_caught_and_named(fault, examine):
    finding = examine(fault)
    assert finding.caught, finding.said
    assert finding.named, finding.said


def stated_digests(bundle) -> dict[str, str]:
    """What the manifest says of files that are verified, or verified on."""
    manifest = read_manifest(bundle)
    assert manifest.held_back is not None
    artifacts = {record.path: record.sha256 for record in manifest.artifacts}
    return {**artifacts, manifest.held_back.path: manifest.held_back.sha256}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.sealed], ids=lambda fault: fault.name)
def test_sealed_faults_leave_no_trace_in_the_digests(fault, healthy, tmp_path):
    sick = shutil.copytree(healthy, tmp_path / "sick")
    fault.into(sick)
    before, after = stated_digests(healthy), stated_digests(sick)
    changed = {path for path in before if before[path] != after[path]}
    assert changed in (set(fault.artifacts), {HELD_BACK_NAME})
    for path, digest in after.items():
        assert bundles.digest(sick / path) == digest


def nothing(bundle):
    """No fault at all."""


def test_a_fault_that_changes_nothing_is_not_caught(examine):
    finding = examine(replace(FAULTS[0], inject=nothing))
    assert not finding.caught
    assert not finding.named
    assert finding.said == ""


def test_a_wrong_name_is_noticed(examine):
    finding = examine(replace(FAULTS[0], says=("scale of 'fc'",)))
    assert finding.caught
    assert not finding.named


def test_a_wrong_layer_is_noticed(examine):
    padding = next(fault for fault in FAULTS if fault.name == "wrong padding")
    finding = examine(replace(padding, layer="layer2.0.conv2"))
    assert finding.caught
    assert not finding.named


def test_blaming_a_healthy_file_is_noticed(examine):
    both = next(fault for fault in FAULTS if fault.name == "edited spec")
    finding = examine(replace(both, artifacts=both.artifacts[:1]))
    assert finding.caught
    assert not finding.named


def test_a_healthy_bundle_that_fails_stops_it(monkeypatch):
    monkeypatch.setattr(selftest, "MIN_SQNR", 200.0)
    with pytest.raises(GateFailedError, match="healthy bundle does not pass"):
        selftest.run_selftest(Stages(), FAULTS[:1])


def test_the_whole_of_it():
    findings = selftest.run_selftest(Stages(), FAULTS[:2])
    assert [finding.fault for finding in findings] == [fault.name for fault in FAULTS[:2]]
    assert all(finding.caught and finding.named for finding in findings)


CAUGHT = selftest.Finding(fault="one", story="how", caught=True, named=True, said="it is [wrong]")
MISSED = replace(CAUGHT, fault="two", named=False)


@pytest.mark.parametrize(("findings", "code"), [((CAUGHT, CAUGHT), 0), ((CAUGHT, MISSED), 1)])
def test_the_command(capsys, monkeypatch, findings, code):
    monkeypatch.setattr(selftest, "run_selftest", lambda stages: findings)
    result = run(capsys, "selftest", "--json")
    assert result.code == code, result.err
    document = json.loads(result.out)
    assert document["passed"] is (code == 0)
    assert document["findings"] == [asdict(finding) for finding in findings]
    shown = run(capsys, "selftest")
    assert shown.code == code
    assert f"{2 - code} of 2 faults caught and named" in shown.out
    assert ("it is [wrong]" in shown.out) is bool(code)
