"""What is known of a reduced precision: what int8 was calibrated with, and how it agrees with FP32.

Both are JSON texts in feature files; the calibration is in classifiers, too. Imports ``errors``,
``execution`` and ``records``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tlpipe.errors import FeatureFileError
from tlpipe.execution import Precision
from tlpipe.records import RecordError, build

FLOORS: Mapping[Precision, float] = {"bf16": 0.998, "fp16": 0.999, "int8": 0.99}
"""Least mean cosine between the embeddings at a precision and those at FP32 that is taken without
being told to. What was measured of EfficientNet-Lite0 is 0.9991 for bf16 and 0.996 for int8; a
network that falls below has layers that do not stand it (int8 with one scale per tensor of weights:
0.92)."""


_FAR = 1e38
"""No activation is as large; in float32 twice this is a number yet."""


@dataclass(frozen=True)
class Calibration:
    """What a network was quantised with: enough to make it again from the pretrained weights.

    Attributes
    ----------
    method : str
        "min-max".
    images : int
        How many images of the source told the ranges.
    network : str
        SHA-256 over the quantised network (see ``graph.digest.network_digest``).
    ranges : dict of str to (float, float)
        Least and greatest value of each activation, by tensor; float32.
    """

    method: str
    images: int
    network: str
    ranges: dict[str, tuple[float, float]]

    def to_json(self) -> str:
        """As feature files and classifiers carry it."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Agreement:
    """How embeddings at a reduced precision agree with those at FP32, on images of the source.

    Attributes
    ----------
    images : int
        How many were compared.
    held_back : bool
        Whether none of them was used in the calibration.
    mean, p1 : float
        Of the cosines: mean and 1st percentile.
    floor : float
        Least mean that was accepted.
    """

    images: int
    held_back: bool
    mean: float
    p1: float
    floor: float

    def to_json(self) -> str:
        """As feature files carry it."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def read_calibration(text: str, where: str) -> Calibration | None:
    """Calibration in a header; None where the text is empty.

    Parameters
    ----------
    text : str
        May come from a stranger.
    where : str
        What messages call the file.

    Raises
    ------
    FeatureFileError
        It makes no sense.
    """
    if not text:
        return None
    try:
        table = json.loads(text)
        ranges = table.get("ranges") if isinstance(table, dict) else None
        if not isinstance(ranges, dict):
            raise RecordError("it has no table 'ranges'")
        found = build(Calibration, table, "it")
        pairs = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
        if not all(abs(x) < _FAR for pair in pairs.values() for x in pair):  # nor NaN
            raise RecordError("a range has no end")
        if not re.fullmatch("[0-9a-f]{64}", found.network):
            raise RecordError(f"its 'network' is {found.network[:70]!r}")
    except (ArithmeticError, RecursionError, TypeError, ValueError) as exc:
        raise FeatureFileError(
            f"The calibration in {where} is damaged: {str(exc)[:300]}.",
            hint="Embed the images again.",
        ) from exc
    return Calibration(found.method, found.images, found.network, pairs)


def read_agreement(text: str, where: str) -> Agreement | None:
    """Agreement in a header; None where the text is empty. Parameters as for `read_calibration`.

    Raises
    ------
    FeatureFileError
        It makes no sense.
    """
    if not text:
        return None
    try:
        return build(Agreement, json.loads(text), "it")
    except (RecursionError, ValueError) as exc:
        raise FeatureFileError(
            f"The agreement in {where} is damaged: {str(exc)[:300]}.",
            hint="Embed the images again.",
        ) from exc
