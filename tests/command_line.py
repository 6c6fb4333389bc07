"""The command line as a user runs it, but in this process, so that TensorFlow is imported once."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from resnet_edge.cli import main


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Finished:
    """Run ``resnet-edge ARGUMENTS`` and return what it printed and its exit code."""
    capsys.readouterr()
    with (
        mock.patch.object(sys, "argv", ["resnet-edge", *map(str, arguments)]),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    captured = capsys.readouterr()
    code = stopped.value.code
    return Finished(code=code if isinstance(code, int) else 0, out=captured.out, err=captured.err)
