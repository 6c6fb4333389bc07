"""Manifests that somebody has edited: the field is named, and nothing is guessed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from resnet_edge.errors import ModelRejectedError
from resnet_edge.manifest import (
    ArtifactRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ProofRecord,
    TensorRecord,
    read_manifest,
    write_manifest,
)
from resnet_edge.pass_reports import Kept, PassReport

MANIFEST = Manifest(
    model=ModelRecord(
        name="net",
        origin="file",
        digest="",
        weights="model",
        weights_digest="",
        custom_objects_digest="",
        parameters=1,
        macs=2,
    ),
    preprocessing={"mean": [0.5]},
    fold_input=False,
    labels=("cat", "dog"),
    input=TensorRecord(name="image", shape=(None, 8, 8, 3)),
    output=TensorRecord(name="logits", shape=(None, 2)),
    opset=17,
    onnx_layout="nchw",
    reference=(),
    artifacts=(
        ArtifactRecord(
            path="net-int8.onnx",
            format="onnx",
            precision="int8",
            size=3,
            sha256="",
            parity=ParityRecord(
                source="held back", images=1, top1_agreement=1, sqnr_db=None, max_abs_error=0.5
            ),
        ),
    ),
    passes=(PassReport(name="fold", kept=(Kept(node="n", source="s", kind="Pad", reason="r"),)),),
    warnings=(),
    versions={"numpy": "2"},
    command=("resnet-edge",),
    created="today",
)


def test_a_manifest_survives_its_file(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


def test_fields_of_a_later_version_are_passed_over(tmp_path):
    document = {**MANIFEST.to_json(), "mood": "good"}
    del document["calibration_notes"]  # and one that an earlier version did not have
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert read_manifest(tmp_path) == MANIFEST


ERROR = "artifacts[0].parity.max_abs_error"


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        (("artifacts", 0, "size"), "x", "artifacts[0].size is 'x', not an integer"),
        (("artifacts", 0, "size"), True, "artifacts[0].size is True, not an integer"),
        (("artifacts", 0, "parity", "images"), 1.5, "artifacts[0].parity.images is 1.5, not an integer"),
        (("artifacts", 0), "net", "artifacts[0] is 'net', not an object"),
        (("artifacts", 0), {}, "artifacts[0].path is missing"),
        (("labels",), 3, "labels is 3, not a list"),
        (("labels", 1), 3, "labels[1] is 3, not a text"),
        (("input", "shape", 1), "8", "input.shape[1] is '8', not an integer"),
        (("fold_input",), 1, "fold_input is 1, not true or false"),
        (("onnx_layout",), "chw", "onnx_layout is 'chw', not one of nchw, nhwc"),
        (("versions", "numpy"), None, "versions.numpy is None, not a text"),
        (("passes", 0), [], "passes[0] is [], not an object"),
        (("passes", 0), {}, "passes[0].name is missing"),
        (("passes", 0, "kept", 0, "reason"), None, "passes[0].kept[0].reason is None, not a text"),
        (("artifacts", 0, "parity"), None, "artifacts[0] has neither a proof nor a parity"),
        (("artifacts", 0, "parity", "max_abs_error"), float("nan"), f"{ERROR} is nan, not a finite number"),
        (("artifacts", 0, "parity", "max_abs_error"), 10**400, f"{ERROR} is {10**400}, not a finite number"),
        (("output", "shape"), [2], "output.shape is [2], not 2 dimensions"),
        (("input", "shape", 1), 0, "input.shape is [None, 0, 8, 3], not 4 dimensions"),
        (("output", "shape", 1), 10**30, f"output.shape is [None, {10**30}], not 2 dimensions"),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, place, value, found):
    document = json.loads(json.dumps(MANIFEST.to_json()))
    *way, last = place
    part = document
    for key in way:
        part = part[key]
    part[last] = value
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ModelRejectedError, match="damaged") as caught:
        read_manifest(tmp_path)
    assert caught.value.found == found


def test_a_savedmodel_is_told_from_a_bundle(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelRejectedError, match="is a SavedModel") as caught:
        read_manifest(tmp_path)
    assert "saved_model_cli" in caught.value.next_step


@pytest.mark.parametrize(
    ("largest", "limit", "half"),
    [(14.2, 2e-2 * 14.2, True), (14.2, 1e-4 * 14.2, False), (0.3, 2e-2, True), (0.3, 1e-4, False)],
)
def test_what_older_manifests_leave_open_is_told_by_their_proofs(tmp_path, largest, limit, half):
    proof = ProofRecord(reference="", images=2, max_abs_error=0.0, max_abs_reference=largest, limit=limit)
    document = replace(MANIFEST, artifacts=(replace(MANIFEST.artifacts[0], proof=proof),)).to_json()
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert not read_manifest(tmp_path).model.half, "what a manifest says counts"
    del document["model"]["half"]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert read_manifest(tmp_path).model.half is half
