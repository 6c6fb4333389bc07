"""A verification as JUnit XML, which every build server shows: a failed gate is a failed test case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from resnet_edge.reports.figures import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resnet_edge.verification.report import ArtifactReport, Check, Report, Verdict

_RESULTS: Mapping[Verdict, type[Error | Failure | Skipped]] = {
    "fail": Failure,
    # Nobody has shown that the file may ship: a job that stays green would say so.
    "inconclusive": Failure,
    "skipped": Skipped,
    "missing": Error,
    "unreachable": Error,
}


def render(report: Report) -> str:
    """One suite for each artifact on each runner and for each file by itself, one case for each check.

    docs/report.md says what each verdict becomes. Control characters, which XML cannot hold, are escaped.
    """
    document = JUnitXml(f"resnet-edge verify {plain(report.subject)}")
    artifacts = {(artifact.path, artifact.runner): artifact for artifact in report.artifacts}
    by_place: dict[tuple[str, str], list[Check]] = {key: [] for key in artifacts}
    for check in report.checks:
        by_place.setdefault((check.artifact, check.runner), []).append(check)
    for key, checks in by_place.items():
        # Always with the runner: a server follows a test case through time by its name.
        name = plain(" on ".join(part for part in key if part) or "the run")
        document.add_testsuite(_suite(report, name, artifacts.get(key), checks))
    text: str = document.tostring().decode()
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _suite(report: Report, name: str, artifact: ArtifactReport | None, checks: Iterable[Check]) -> TestSuite:
    suite = TestSuite(name)
    if report.created:
        suite.timestamp = plain(report.created)
    suite.add_property("model", plain(report.model))
    suite.add_property("reference", plain(report.reference))
    suite.add_property("data", plain(report.data.name))
    if artifact:
        suite.add_property("engine", plain(artifact.engine))
    for check in checks:
        suite.add_testcase(_case(name, check))
    return suite


def _case(suite: str, check: Check) -> TestCase:
    case = TestCase(plain(check.name), classname=suite)
    sentence = plain(check.sentence)
    if check.verdict == "pass":
        case.system_out = sentence
    else:
        result = _RESULTS[check.verdict](sentence, check.verdict)
        # Some servers show the attribute, others the text.
        result.text = sentence
        case.result = [result]
    return case
