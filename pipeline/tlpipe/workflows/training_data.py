"""The rows of a feature file by their use: what trains a head, and what judges it.

The two are separate records, made by one function. Everything that chooses or fits anything is
given a ``Training``, from which no judging row can be reached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.store import FeatureFile, FeatureHeader, StoredVectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.stages.splits import Plan
    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Labelled:
    """All that a feature file says of its N rows, but for keys and embeddings.

    Attributes
    ----------
    header : FeatureHeader
    dim : int
        D.
    classes : list of str
    labels : int32 array (N,)
        Index into `classes`, -1 for none.
    splits : int8 array (N,)
    groups : int64 array (N,)
    content_sha256 : uint8 array (N, 32)
    """

    header: FeatureHeader
    dim: int
    classes: list[str]
    labels: NDArray[np.int32]
    splits: NDArray[np.int8]
    groups: NDArray[np.int64]
    content_sha256: NDArray[np.uint8]


@dataclass(frozen=True)
class Training:
    """What a head is chosen and fitted on.

    Attributes
    ----------
    vectors : float32 array (N, D), or StoredVectors
        Of the rows that train, numbered anew.
    labels : int32 array (N,), or bool array (N, K)
    folds : list of pairs of int arrays
        Rows of these to train on, and to score on.
    """

    vectors: Float32Array | StoredVectors
    labels: Any
    folds: list[tuple[Rows, Rows]]

    @property
    def rows(self) -> Rows:
        """All of them."""
        return np.arange(len(self.labels))

    def spent(self) -> Training:
        """The same without its embeddings, so that their memory is let go."""
        return replace(self, vectors=np.empty((0, self.vectors.shape[1]), np.float32))


@dataclass(frozen=True)
class Judging:
    """What a head is judged on, and used for nothing else.

    Attributes
    ----------
    vectors : StoredVectors
        (N, D).
    labels : int32 array (N,), or bool array (N, K)
    """

    vectors: StoredVectors
    labels: Any


def read_labelled(file: FeatureFile) -> Labelled:
    """Read what is known of each row.

    Raises
    ------
    DamagedFileError
    """
    rows = file.rows(0, file.count, texts=False)
    file.labels(0, file.count)  # checks them against the classes
    return Labelled(
        header=file.header,
        dim=file.dim,
        classes=file.classes,
        labels=file.read("labels", 0, file.count),
        splits=rows.splits,
        groups=rows.groups,
        content_sha256=rows.content_sha256,
    )


def parted(
    file: FeatureFile, plan: Plan, labels: Any, *, streamed: bool
) -> tuple[Training, Judging]:
    """Part the rows by their use.

    Embeddings that judge are read when they are asked for: those that train are let go by then.

    Parameters
    ----------
    file : FeatureFile
        Stays open as long as the result is used.
    plan : Plan
    labels : int32 array (N,), or bool array (N, K)
        Of all rows of the file.
    streamed : bool
        Whether embeddings that train stay in the file, too.

    Raises
    ------
    DamagedFileError
    """
    known = np.zeros(file.count, np.bool_)
    known[plan.fit] = True
    if known[plan.judge].any():
        raise RuntimeError("A row that judges also trains.")
    folds = []
    for rows, held in plan.folds:
        if not (known[rows].all() and known[held].all()):
            raise RuntimeError("A row of a fold is none of those that train.")
        folds.append((np.searchsorted(plan.fit, rows), np.searchsorted(plan.fit, held)))
    stored = StoredVectors(file, plan.fit)
    vectors = stored if streamed else stored.load()
    return (
        Training(vectors, labels[plan.fit], folds),
        Judging(StoredVectors(file, plan.judge), labels[plan.judge]),
    )
