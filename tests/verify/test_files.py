"""The check of a bundle's files against what was written."""

from __future__ import annotations

from collections import Counter

from resnet_edge import bundle
from resnet_edge.verification.files import check_files
from resnet_edge.verification.target import BundleTarget


def test_a_file_is_read_once_however_many_artifacts_share_it(small_bundle, monkeypatch):
    target = BundleTarget(small_bundle, ("*-int8.*",))
    digest = bundle.digest
    read: Counter[str] = Counter()

    def counted(path):
        read[path.name] += 1
        return digest(path)

    monkeypatch.setattr(bundle, "digest", counted)
    assert [check.verdict for check in check_files(target)] == ["pass", "pass"]
    files = ("onnx", "tflite", "spec.json", "integers.safetensors")
    assert {name: read[name] for name in read if "int8" in name} == {
        f"resnet8-int8.{end}": 1 for end in files
    }


def test_what_is_gone_is_told_of_every_artifact_made_from_it(own_bundle):
    (own_bundle / "resnet8-int8.spec.json").unlink()
    checks = check_files(BundleTarget(own_bundle, ("*-int8.*",)))
    assert [check.verdict for check in checks] == ["fail", "fail"]
    assert all("spec.json is gone after it was written" in check.sentence for check in checks)
