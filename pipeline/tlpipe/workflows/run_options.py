"""What a user may say of how a network is run over a source, and a feature file updated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlpipe.errors import OptionError
from tlpipe.execution import ENGINES, Device, Engine, Execution, Precision, Runtime
from tlpipe.types import DECODE_MODES, DecodeMode


@dataclass(frozen=True)
class RunOptions:
    """How a network is run over a source.

    Attributes
    ----------
    device, runtime, batch_size, threads
        As for ``Execution``.
    decode : {"auto", "exact"}
        "exact" decodes every pixel and has Pillow resize; "auto" decodes large JPEGs at a fraction
        of their size, and resizes faster. Where a file says how its images are decoded (a feature
        file that is updated, a classifier), "auto" follows it.
    profile : pathlib.Path or None
        A file for a trace of what each thread does, which Chrome's and Perfetto's viewers open.
    precision : {"fp32", "bf16", "fp16", "int8"} or None
        As for ``Execution``; None for that of the network: a classifier is FP32 or int8, and a
        backbone FP32.
    max_rejects : int, float or None
        Most rejects that still count as success: a number, a fraction of all items (a float below
        1), or None for no limit.
    min_agreement : float or None
        At a reduced precision: least mean cosine to the embeddings at FP32, from 0 to 1. None for
        the precision's own (``precision.FLOORS``) where a file is begun, and for what was accepted
        then where one is updated.
    engine : {"local", "ray"}
        "ray": on the nodes of a Ray cluster, for what can be done there. Then `threads` is the
        number of cores of each worker: by default one, and with a GPU its share of the node's.
    address : str or None
        Of the Ray cluster: "auto" for the one that this machine belongs to, or HOST:PORT of its
        head. None for that in the environment (RAY_ADDRESS), else for one that is started on this
        machine and ends with the run.
    """

    device: Device = "auto"
    batch_size: int | None = None
    max_rejects: float | None = None
    threads: int | None = None
    precision: Precision | None = None
    runtime: Runtime = "auto"
    decode: DecodeMode = "auto"
    profile: Path | None = None
    min_agreement: float | None = None
    engine: Engine = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        _ = self.execution  # checks its values
        if self.decode not in DECODE_MODES:
            raise OptionError(
                f"The way to decode {self.decode!r} is unknown.",
                hint=f"Use one of {list(DECODE_MODES)}.",
            )
        if self.profile is not None and self.profile.suffix != ".json":
            raise OptionError(
                f"The trace {str(self.profile)!r} must end in .json: it is a JSON file, and"
                " replaces what is there."
            )
        least = self.min_agreement
        if least is not None and not (isinstance(least, (int, float)) and 0 <= least <= 1):
            raise OptionError(f"min_agreement is {least!r}; it must be a cosine from 0 to 1.")
        self._check_engine()
        limit = self.max_rejects
        if not (limit is None or (type(limit) is int and limit >= 0) or _is_fraction(limit)):
            raise OptionError(
                f"max_rejects is {limit!r}; it must be an int of at least 0, a fraction of all"
                " items as a float from 0 to below 1, or None."
            )

    def _check_engine(self) -> None:
        if self.engine not in ENGINES:
            raise OptionError(
                f"The engine {self.engine!r} is unknown.", hint=f"Use one of {list(ENGINES)}."
            )
        if self.engine == "local" and self.address is not None:
            raise OptionError(
                f"The address {self.address!r} is that of a Ray cluster, and the engine is local.",
                hint="Add --engine ray, or leave --address out.",
            )
        if self.engine == "ray" and (self.address or "").startswith("ray://"):
            raise OptionError(
                f"The address {self.address!r} is that of a Ray client's server.",
                hint="Run the command on a machine of the cluster with --address auto, or name its"
                " head as HOST:PORT: what a run writes must be on storage that all nodes share.",
            )
        if self.engine == "ray" and self.profile is not None:
            raise OptionError(
                "A trace shows the threads of one process, and --engine ray has many.",
                hint="Leave --profile out, or take the trace with the local engine.",
            )

    @property
    def execution(self) -> Execution:
        """How a network is run that is FP32 itself."""
        precision = self.precision or "fp32"
        return Execution(self.device, precision, self.runtime, self.batch_size, self.threads)

    def too_many(self, rejects: int, total: int) -> bool:
        """Whether `rejects` of `total` items are more than allowed."""
        if self.max_rejects is None:
            return False
        fraction = isinstance(self.max_rejects, float)
        return rejects > (self.max_rejects * total if fraction else self.max_rejects)


@dataclass(frozen=True)
class UpdateOptions:
    """How a feature file that exists is updated.

    Attributes
    ----------
    rehash : bool
        Compare the content of every file, not its size and time of change.
    max_gone : int, float or None
        Most rows that may be dropped: a number, a fraction of all rows (a float up to 1), or None
        for half of them, and more where as many new images have come.
    set_above : int or None
        Most rows of one HDF5 file: a result of more is stored as a set of files of so many rows,
        with an index. None for as many as the existing set's files have, else 2,000,000.
    """

    rehash: bool = False
    max_gone: float | None = None
    set_above: int | None = None

    def __post_init__(self) -> None:
        check_set_above(self.set_above)
        if not is_limit(self.max_gone):
            raise OptionError(
                f"max_gone is {self.max_gone!r}; it must be an int of at least 0, a fraction as a"
                " float from 0 to 1, or None."
            )


def check_set_above(value: object) -> None:
    """Refuse a number of rows that no file can have at most.

    Raises
    ------
    OptionError
    """
    if not (value is None or (type(value) is int and value >= 1)):
        raise OptionError(
            f"set_above is {value!r}; it must be a number of rows as an int of at least 1, or None."
        )


def is_limit(value: object) -> bool:
    """Whether a value is a number of at least 0 as an int, a fraction up to 1 as a float, or None.

    Other types are none, not even True.
    """
    if isinstance(value, float):
        return 0 <= value <= 1
    return value is None or (type(value) is int and value >= 0)


def _is_fraction(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < 1
