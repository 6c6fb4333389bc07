"""Ctrl-C and SIGTERM in the middle of an export, as another process sees them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_export_leaves_nothing(tmp_path, signum, code):
    bundle = tmp_path / "deep" / "bundle"
    command = [sys.executable, "-m", "resnet_edge", "export", "resnet110", "-o", str(bundle), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # The stage folder appears when writing begins: then there is something to clean up.
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("deep/.bundle.partial-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signum)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "nothing was left behind" in errors
    assert json.loads(output)["error"]["exit_code"] == code
    assert list(tmp_path.iterdir()) == []
