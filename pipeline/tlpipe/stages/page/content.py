"""What a report shows: plain records, filled by ``workflows.report`` and drawn by ``page``.

Images are known by their numbers in ``Images``. Counts and figures are of all images; where there
are more than a page can hold, ``Images`` has a sample that holds what the lists of the page name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlpipe.stages.page.figures import ClassRow, CurvePoint, Figure, Matrix, Reliability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array


@dataclass(frozen=True)
class Projection:
    """A map of the embeddings.

    Attributes
    ----------
    name : str
        "PCA", "UMAP".
    points : float32 array (N, 2)
        Of each image of ``Images``, from 0 to 1 in both directions; one unit is the same length in
        both.
    note : str
        A sentence: what the map keeps and what it does not.
    """

    name: str
    points: Float32Array
    note: str


@dataclass(frozen=True)
class Sheet:
    """Square tiles in one image, row by row.

    Attributes
    ----------
    data : bytes
    media_type : str
        "image/webp".
    tile_px, columns, count : int
        Width of a tile; tiles in a row; tiles.
    """

    data: bytes
    media_type: str
    tile_px: int
    columns: int
    count: int


@dataclass(frozen=True)
class Images:
    """The images of the page, N of them.

    Attributes
    ----------
    keys : list of N str
    labels, guesses : list of N tuples of int
        Numbers of classes; empty for none, several only where an image may have several labels.
    splits : list of N str
        "train", "validation", "test"; "" for none.
    judged : bool array (N,)
        Whether the image is among those that the figures are of.
    confidences : float32 array (N,)
        Probability of the guess; NaN where there is none.
    own : float32 array (N,)
        Probability of the label; NaN where there is none.
    neighbours : int32 array (N, k)
        The nearest images that train, the nearest first; -1 for none.
    tiles : int32 array (N,)
        Number of its tile, over all sheets; -1 where there is no picture.
    sheets : list of Sheet
    larger : mapping of int to bytes
        WebP of images that the lists of the page show, by image.
    """

    keys: list[str]
    labels: list[tuple[int, ...]]
    guesses: list[tuple[int, ...]]
    splits: list[str]
    judged: NDArray[np.bool_]
    confidences: Float32Array
    own: Float32Array
    neighbours: NDArray[np.int32]
    tiles: NDArray[np.int32]
    sheets: list[Sheet]
    larger: Mapping[int, bytes]


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong, and what it probably is."""

    image: int
    suggested: int
    self_confidence: float
    suggested_probability: float


@dataclass(frozen=True)
class Twins:
    """Two images that are the same, or nearly; `cosine` is None for the same content."""

    first: int
    second: int
    cosine: float | None


@dataclass(frozen=True)
class Listed:
    """A list of findings, of which the page holds the first.

    Attributes
    ----------
    count : int
        Of all findings.
    note : str
        A sentence: what they are and what to do about them.
    """

    count: int
    note: str


@dataclass(frozen=True)
class Mistakes(Listed):
    """Judged images that the classifier is wrong about, the most confident first."""

    images: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Suspects(Listed):
    """Likely label errors, the most suspect first."""

    suspects: list[Suspect] = field(default_factory=list)


@dataclass(frozen=True)
class Pairs(Listed):
    """Near-duplicates, or images on two sides of the splits."""

    pairs: list[Twins] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All that the report of one feature file shows. Parts that do not apply are None or empty.

    Attributes
    ----------
    title : str
    features, classifier : str
        Names of the files; the latter "" where there is none.
    made_at : str
        When the report was made, in UTC.
    count : int
        Images of the feature file, of which ``images`` may be a sample.
    classes : list of str
    multilabel : bool
        Whether an image may have several labels.
    judged_on : str
        In words, on which images the figures rest, and what made the probabilities.
    figures : list of Figure
        The most important first.
    matrix : Matrix or None
    rows : list of ClassRow
    reliability : list of Reliability
    learning : list of CurvePoint
    learning_note : str
        What the learning curve says.
    projections : list of Projection
        The first is shown at first.
    images : Images
    mistakes : Mistakes or None
    suspects : Suspects or None
    near_duplicates, leaks : Pairs or None
    provenance : list of (str, list of (str, str))
        Sections of names and values.
    rejects : list of (reason, images, meaning)
    notices : list of str
        What a reader would want to know.
    """

    title: str
    features: str
    classifier: str
    made_at: str
    count: int
    classes: list[str]
    multilabel: bool
    judged_on: str
    figures: list[Figure]
    matrix: Matrix | None
    rows: list[ClassRow]
    reliability: list[Reliability]
    learning: list[CurvePoint]
    learning_note: str
    projections: list[Projection]
    images: Images
    mistakes: Mistakes | None
    suspects: Suspects | None
    near_duplicates: Pairs | None
    leaks: Pairs | None
    provenance: Sequence[tuple[str, list[tuple[str, str]]]]
    rejects: list[tuple[str, int, str]]
    notices: list[str]
