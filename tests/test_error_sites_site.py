"""Errors of sites that no other test brings about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refusals import refused
from tlpipe.errors import OutputError
from tlpipe.stages.site.folder import check_site


def test_a_folder_that_may_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with refused(OutputError, f"{str(tmp_path)!r} cannot be written to", "another --output"):
        check_site(tmp_path / "site", overwrite=False, classifier=tmp_path / "c.onnx")
