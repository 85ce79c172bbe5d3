"""Records of what ``compare`` found; ``docs/how-to/compare.md`` specifies them as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlpipe.stages.metrics import Difference, Metrics
from tlpipe.version import __version__


@dataclass(frozen=True)
class Cost:
    """What a backbone costs.

    Attributes
    ----------
    dim : int
        D.
    stored_bytes : float
        Of the feature file, per image.
    head_s : float
        Seconds to train a head, its search for settings included.
    network_bytes : int or None
        Of the network without its own last layer; None where it cannot be had.
    inference_s : float or None
        Seconds per image: of one core on the CPU, of all GPUs together else.
    device : str or None
        On what that was measured; None where it was not.
    """

    dim: int
    stored_bytes: float
    head_s: float
    network_bytes: int | None
    inference_s: float | None
    device: str | None


@dataclass(frozen=True)
class Compared:
    """One feature file.

    Attributes
    ----------
    path : pathlib.Path
    name : str
        That of the file; the path, where several files have the same name.
    backbone : str
        Its name, or what was declared in its place.
    fingerprint, precision, decoder : str
    count, left_out : int
        Images of the file, and how many of them not all files have.
    metrics : Metrics
    accuracy, log_loss : Difference or None
        Less those of the best; None of the best itself.
    cost : Cost
    """

    path: Path
    name: str
    backbone: str
    fingerprint: str
    precision: str
    decoder: str
    count: int
    left_out: int
    metrics: Metrics
    accuracy: Difference | None
    log_loss: Difference | None
    cost: Cost


@dataclass(frozen=True)
class CompareResult:
    """What ``compare`` found.

    Attributes
    ----------
    files : list of Compared
        In the order in which they were given.
    classes : list of str
    common, judged : int
        Images that all files have, and how many of them judged.
    heads : int
        Trained for each file.
    judged_on : str
        In words.
    level : float
        Of the interval of each difference: so that all of them hold at once with 95 % certainty.
    seed : int
    best, recommended : int
        Numbers of files: the most accurate, and the one to use.
    recommendation : str
        The reason in numbers.
    notices : list of str
        What a user would want to know.
    """

    files: list[Compared]
    classes: list[str]
    common: int
    judged: int
    heads: int
    judged_on: str
    level: float
    seed: int
    best: int
    recommended: int
    recommendation: str
    notices: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, as ``docs/how-to/compare.md`` specifies them."""
        plain = asdict(self)
        for entry, file in zip(plain["files"], self.files, strict=True):
            entry["path"] = str(file.path)
            entry["difference"] = {"accuracy": entry.pop("accuracy")}
            entry["difference"]["log_loss"] = entry.pop("log_loss")
            if file.accuracy is None or file.log_loss is None:
                entry["difference"] = None
            else:
                for name, of in (("accuracy", file.accuracy), ("log_loss", file.log_loss)):
                    entry["difference"][name]["distinguishable"] = of.distinguishable
        return {"tlpipe_version": __version__, **plain}
