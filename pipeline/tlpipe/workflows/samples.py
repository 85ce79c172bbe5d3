"""Images of a source to settle a precision with: some to calibrate, others to compare."""

from __future__ import annotations

from tlpipe.stages.source import Source
from tlpipe.types import Item
from tlpipe.workflows.common import spread

CALIBRATION_IMAGES = 128
"""EfficientNet-Lite0 on photos of clothing: the mean cosine is the same to the third digit with 32,
64 and 128 images. More images cost 25 ms each and cover more of what the source holds."""

HELD_BACK_IMAGES = 200
"""Images that are compared: the 1st percentile is then that of the two worst."""


def samples(source: Source, *, calibrate: bool) -> tuple[list[Item], list[Item]]:
    """Items to calibrate with and to compare, spread over all of a source."""
    wanted = CALIBRATION_IMAGES if calibrate else 0
    total = wanted + HELD_BACK_IMAGES
    sample = list(spread(source, total))
    share = max(1, len(sample) * wanted // total) if wanted else 0
    # By turns, so that both are spread alike.
    turns = [i * share // len(sample) for i in range(len(sample) + 1)]
    calibrating = [turns[i] != turns[i + 1] for i in range(len(sample))]
    return (
        [item for item, first in zip(sample, calibrating, strict=True) if first],
        [item for item, first in zip(sample, calibrating, strict=True) if not first],
    )
