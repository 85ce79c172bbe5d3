"""Errors of reports that no other test brings about."""

from __future__ import annotations

import numpy as np

from refusals import refused
from tlpipe.errors import OptionError
from tlpipe.stages.projection import umap


def test_a_map_of_too_few_images() -> None:
    with refused(OptionError, "A UMAP of 9 images says nothing", "10", "Leave out --map umap"):
        umap(np.zeros((9, 4), np.float32), 0)
