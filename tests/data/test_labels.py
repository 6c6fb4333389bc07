from __future__ import annotations

import pytest

from resnet_edge.data.labels import read_labels
from resnet_edge.errors import DataRejectedError


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\nÖl, scharf\n",
        "cat\ndog\nÖl, scharf",
        "cat\r\ndog\r\nÖl, scharf\r\n\r\n",
        "\ufeffcat\n dog \nÖl, scharf\n\n\n",
    ],
    ids=["plain", "no last newline", "Windows", "byte order mark and spaces"],
)
def test_one_label_a_line(tmp_path, content):
    path = tmp_path / "labels.txt"
    path.write_bytes(content.encode())
    assert read_labels(path, 3) == ("cat", "dog", "Öl, scharf")


def test_labels_may_repeat(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("crane\nmaillot\ncrane\n")
    assert read_labels(path, 3) == ("crane", "maillot", "crane")


def test_only_newlines_end_a_label(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("a\u2028b\nc\x0bd\n", encoding="utf-8")
    assert read_labels(path, 2) == ("a\u2028b", "c\x0bd")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ndog\n", "2 labels"),
        (b"cat\ndog\nfox\nhen\n", "4 labels"),
        (b"", "empty"),
        (b"cat\n\ndog\n", "line 2"),
        (b"cat\n\xff\xfe\nfox\n", "UTF-8"),
    ],
    ids=["too few", "too many", "empty file", "empty line", "not UTF-8"],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(DataRejectedError, match=message) as caught:
        read_labels(path, 3)
    assert str(path) in caught.value.where


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(DataRejectedError, match="cannot be read"):
            read_labels(path, 3)
