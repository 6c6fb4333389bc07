"""JUnit XML: what build servers count and show."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest
from junitparser import JUnitXml

from resnet_edge.reports import junit
from resnet_edge.verification.report import Check
from tests.reports.sample import HOSTILE, hostile, sample


def suites(report):
    return {suite.get("name"): suite for suite in ET.fromstring(junit.render(report)).iter("testsuite")}


def cases(suite):
    return [case.get("name") for case in suite.iter("testcase")]


def test_one_suite_for_each_artifact_and_runner_and_for_each_file():
    found = suites(sample())
    files = [check.artifact for check in sample().checks if check.name == "files"]
    assert list(found) == [*(f"{each.path} on local" for each in sample().artifacts), *files]
    assert cases(found["resnet8-int8.tflite"]) == ["files"]
    broken = found["resnet8-int8.tflite on local"]
    assert cases(broken) == ["sqnr", "drop", "operators"]
    assert {case.get("classname") for case in broken.iter("testcase")} == {"resnet8-int8.tflite on local"}
    engine = {each.get("name"): each.get("value") for each in broken.iter("property")}["engine"]
    assert engine == "LiteRT 2.3.0 (XNNPACK)"


def test_the_counts_are_what_servers_read():
    report = JUnitXml.fromstring(junit.render(sample()).encode())
    assert (report.tests, report.failures, report.skipped, report.errors) == (14, 4, 1, 0)


@pytest.mark.parametrize(
    ("verdict", "tag"),
    [
        ("fail", "failure"),
        ("inconclusive", "failure"),
        ("skipped", "skipped"),
        ("missing", "error"),
        ("unreachable", "error"),
    ],
)
def test_what_each_verdict_becomes(verdict, tag):
    check = Check(
        name="runner", artifact="", runner="ssh://pi", verdict=verdict, sentence="No answer in 10 s."
    )
    (case,) = suites(dataclasses.replace(sample(), checks=(check,)))["ssh://pi"].iter("testcase")
    (result,) = case
    assert (result.tag, result.get("type"), result.get("message")) == (tag, verdict, "No answer in 10 s.")
    assert result.text == "No answer in 10 s."


def test_a_check_that_passes_says_what_it_found():
    case = next(suites(sample())["resnet8-fp32.onnx on local"].iter("testcase"))
    assert [each.tag for each in case] == ["system-out"]


def test_names_that_xml_cannot_hold():
    text = junit.render(hostile())
    (name,) = {case.get("name") for case in ET.fromstring(text).iter("testcase")}
    assert name
    assert name.startswith(HOSTILE)
    assert name.endswith("\\x1b[31m\\u202e \\udc80")
