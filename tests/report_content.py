"""Made-up contents of reports: pictures, guesses and findings for the tests of pages."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tlpipe.stages.page import (
    Bin,
    ClassRow,
    Comparison,
    Contender,
    CurvePoint,
    Figure,
    Images,
    Matrix,
    Mistakes,
    Pairs,
    Projection,
    Reliability,
    Report,
    Sheet,
    Suspect,
    Suspects,
    Twins,
)

CLASSES = ["apple", "banana", "cherry"]

HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "</script><img src=x onerror=\"document.title = 'taken'\">",
    "\"quoted' & <b>bold</b> {{ 7 * 7 }}",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "very-" + "long" * 60,
    "line\u2028 and paragraph\u2029 separators",
]

_TILE = 24
_IN_SHEET = 1024
_COLUMNS = 32
_NEIGHBOURS = 4


def colour_of(image: int) -> tuple[int, int, int]:
    """The one colour of an image's picture, so that a test can tell which it sees."""
    return (image * 37 % 256, image * 91 % 256, image * 53 % 256)


def _saved(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def _sheets(count: int) -> list[Sheet]:
    sheets = []
    for first in range(0, count, _IN_SHEET):
        tiles = min(_IN_SHEET, count - first)
        sheet = Image.new("RGB", (_COLUMNS * _TILE, -(-tiles // _COLUMNS) * _TILE))
        for k in range(tiles):
            left, top = k % _COLUMNS * _TILE, k // _COLUMNS * _TILE
            sheet.paste(colour_of(first + k), (left, top, left + _TILE, top + _TILE))
        sheets.append(Sheet(_saved(sheet), "image/webp", _TILE, _COLUMNS, tiles))
    return sheets


def no_images(*, neighbours: int = _NEIGHBOURS) -> Images:
    """Not one image."""
    none = np.zeros(0, np.float32)
    return Images(
        keys=[],
        labels=[],
        guesses=[],
        splits=[],
        judged=np.zeros(0, bool),
        confidences=none,
        own=none,
        neighbours=np.zeros((0, neighbours), np.int32),
        tiles=np.zeros(0, np.int32),
        sheets=[],
        larger={},
    )


def images_of(count: int, classes: Sequence[str] = CLASSES, names: Sequence[str] = ()) -> Images:
    """`count` images, a quarter of which judge; every seventh guess is wrong."""
    numbers = np.arange(count)
    labels = numbers % len(classes)
    guesses = np.where(numbers % 7 == 3, (labels + 1) % len(classes), labels)
    judged = numbers % 4 == 0
    trains = numbers[~judged]
    near = np.full((count, _NEIGHBOURS), -1, np.int32)
    for image in range(count):
        found = [other for other in trains[:64] if other != image][:_NEIGHBOURS]
        near[image, : len(found)] = found
    keys = [f"{classes[label]}/image-{k:05}.png" for k, label in enumerate(labels)]
    keys[: len(names)] = names[:count]
    confidences = (0.5 + (numbers * 17 % 50) / 100).astype(np.float32)
    tiles = numbers.astype(np.int32)
    tiles[numbers % 50 == 5] = -1  # without a picture
    listed = [k for k in range(0, min(count, 200), 9) if tiles[k] >= 0]
    return Images(
        keys=keys,
        labels=[(int(label),) for label in labels],
        guesses=[(int(guess),) for guess in guesses],
        splits=["test" if judge else "train" for judge in judged],
        judged=judged,
        confidences=confidences,
        own=np.where(labels == guesses, confidences, 1 - confidences).astype(np.float32),
        neighbours=near,
        tiles=tiles,
        sheets=_sheets(count),
        larger={k: _saved(Image.new("RGB", (48, 32), colour_of(k))) for k in listed},
    )


def _places(images: Images, classes: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    labels = np.array([label[0] for label in images.labels], dtype=float)
    turns = 2 * np.pi * labels / max(classes, 1)
    middles = 0.5 + 0.3 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return np.clip(middles + random.normal(0, 0.05, middles.shape), 0, 1).astype(np.float32)


def _counts(images: Images, classes: int) -> list[list[int]]:
    counts = [[0] * classes for _ in range(classes)]
    for label, guess, judge in zip(images.labels, images.guesses, images.judged, strict=True):
        if judge:
            counts[label[0]][guess[0]] += 1
    return counts


def report_of(
    count: int = 120, classes: Sequence[str] = CLASSES, names: Sequence[str] = ()
) -> Report:
    """A report that has every part."""
    images = images_of(count, classes, names)
    counts = _counts(images, len(classes))
    confused = [
        (t, p, n) for t, row in enumerate(counts) for p, n in enumerate(row) if t != p and n
    ]
    wrong = [k for k in range(count) if images.judged[k] and images.labels[k] != images.guesses[k]]
    return Report(
        title="Fruit of a market",
        features="fruit.features.h5",
        classifier="fruit.onnx",
        made_at="2026-11-29T10:00:00+00:00",
        count=count,
        classes=list(classes),
        multilabel=False,
        judged_on="the images of the test split",
        figures=[
            Figure("accuracy", 0.857, 0.81, 0.9, "Of 100 new images, 81 to 90 are told rightly."),
            Figure("log loss", 1.7, 1.5, 2.1, "0 is a classifier that is right and sure."),
            Figure("macro-F1", 0.84, None, None, "The mean over all classes."),
        ],
        matrix=Matrix(counts, sorted(confused, key=lambda pair: -pair[2])),
        rows=[
            ClassRow(name, 10 * k, 5, 0.9 - 0.01 * (k % 9), 0.8 - 0.02 * (k % 7), 0.85, 0.6, 0.9)
            for k, name in enumerate(classes)
        ],
        reliability=[
            Reliability(
                name,
                [Bin(20 + 5 * k, 0.1 + 0.2 * k, 0.1 + slope * k, 0.05, 0.95) for k in range(5)],
                0.05,
            )
            for name, slope in (("before calibration", 0.15), ("after calibration", 0.2))
        ],
        learning=[CurvePoint(20 * 2**k, 0.6 + 0.05 * k, 0.5 + 0.05 * k, 0.8) for k in range(5)],
        learning_note="More images would probably help.",
        projections=[
            Projection(name, _places(images, len(classes), seed), f"What {name} keeps.")
            for seed, name in enumerate(("PCA", "UMAP"))
        ],
        images=images,
        mistakes=Mistakes(max(len(wrong), 214), "Sure, and wrong.", wrong[:30]),
        suspects=Suspects(1, "Look at each.", [Suspect(1, (1 + 1) % len(classes), 0.02, 0.97)]),
        near_duplicates=Pairs(
            2, "One of each is enough.", [Twins(2, 6, 0.998), Twins(9, 10, None)]
        ),
        leaks=Pairs(0, "Images on two sides.", []),
        provenance=[
            ("Backbone", [("name", "efficientnet-lite0.in1k"), ("fingerprint", "9f" * 32)])
        ],
        rejects=[("truncated", 2, "The image ends before its last row.")],
        notices=["The page holds a sample."],
    )


def unlabelled_report() -> Report:
    """A report of images that have neither labels nor guesses."""
    full = report_of(40)
    none = np.full(40, np.nan, np.float32)
    images = full.images
    return Report(
        title=full.title,
        features=full.features,
        classifier="",
        made_at=full.made_at,
        count=40,
        classes=[],
        multilabel=False,
        judged_on="",
        figures=[],
        matrix=None,
        rows=[],
        reliability=[],
        learning=[],
        learning_note="",
        projections=full.projections[:1],
        images=Images(
            keys=images.keys,
            labels=[()] * 40,
            guesses=[()] * 40,
            splits=[""] * 40,
            judged=np.zeros(40, bool),
            confidences=none,
            own=none,
            neighbours=images.neighbours,
            tiles=images.tiles,
            sheets=images.sheets,
            larger={},
        ),
        mistakes=None,
        suspects=None,
        near_duplicates=full.near_duplicates,
        leaks=None,
        provenance=full.provenance,
        rejects=[],
        notices=[],
    )


def comparison_of(names: Sequence[str] = ("small.h5", "medium.h5", "large.h5")) -> Comparison:
    """A comparison of feature files, the last the most accurate, the second recommended."""
    contenders = []
    for k, name in enumerate(names):
        last = k == len(names) - 1
        value = 0.8 + 0.15 * k / len(names)
        meaning = "They cannot be told apart." if k else "It is less accurate."
        contenders.append(
            Contender(
                name=name,
                backbone=f"backbone-{k}.in1k",
                precision="fp32",
                accuracy=Figure("accuracy", value, value - 0.03, value + 0.03, ""),
                log_loss=Figure("log loss", 0.6 / (k + 1), 0.5 / (k + 1), 0.7 / (k + 1), ""),
                difference=None
                if last
                else Figure("difference", value - 0.95, value - 0.98, value - 0.91, meaning),
                dim=512 * (k + 1),
                stored_bytes=2048.0 * (k + 1),
                head_s=0.8 + k,
                network_bytes=16_000_000 * (k + 1),
                inference_s=0.004 * 3**k,
                device="cpu",
                recommended=k == 1,
            )
        )
    return Comparison(
        title="Three backbones",
        made_at="2026-11-29T10:00:00+00:00",
        judged_on="the same 200 images",
        recommendation="Take 'medium.h5': the larger one cannot be told from it.",
        contenders=contenders,
        rows=[(name, [0.6 + 0.3 * k / len(names) for k in range(len(names))]) for name in CLASSES],
        provenance=[("Source", [("images", "800")])],
        notices=["Times were taken on a busy machine."],
    )
