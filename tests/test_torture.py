"""A short torture: a run is killed at some of its steps and at random instants (see torture.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("more", [["--rounds", "24"], ["--rounds", "8", "--sets"]])
def test_a_run_that_is_killed_loses_nothing(more: list[str]) -> None:
    script = Path(__file__).with_name("torture.py")
    command = [sys.executable, str(script), "--first-run", "--seed", "7", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
