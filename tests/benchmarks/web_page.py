"""Compare a classifier's page with ``tlpipe classify``. Run: ``make bench-web SOURCE=folder``.

A classifier is trained on SOURCE, or taken (``--classifier``); 200 pictures are chosen evenly from
SOURCE. `tlpipe classify` says what they are, and so does the page of `tlpipe export-web`, in
Chromium, from a server on this machine. Printed are how often the most probable class is the same,
how often both call a picture unknown or not, the greatest difference of a probability, and the
time per picture: that of the page is decoding, preprocessing and the network, one picture after the
other, on one thread; that of the command is its own rate. Pictures that differ by more than 0.02
are named. ``--enlarge N`` makes each picture a JPEG of N times its size first, as a camera's: then
`tlpipe classify` decodes it at a fraction of that size, which the page does not.

The package onnxruntime-web is downloaded, or stands where TLPIPE_ORT_WEB says.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from PIL import Image

import tlpipe
from browser import open_browser, page_of
from web_site import answers, ready, site_at

TOLERANCE = 0.02
AT_ONCE = 25


def tlpipe_command(*arguments: str | Path) -> str:
    """Run a command of tlpipe; what it said."""
    command = [sys.executable, "-m", "tlpipe", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def chosen(source: Path, count: int) -> list[Path]:
    """Pictures of a folder, evenly."""
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in suffixes)
    return [found[i * len(found) // count] for i in range(min(count, len(found)))]


def enlarged(pictures: list[Path], times: int, folder: Path) -> list[Path]:
    """The pictures as JPEG files of some times their size; they themselves for 1."""
    if times == 1:
        return pictures
    folder.mkdir()
    made = []
    for number, path in enumerate(pictures):
        made.append(folder / f"{number:03d}-{path.stem}.jpg")
        with Image.open(path) as image:
            size = (image.width * times, image.height * times)
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(made[-1], quality=92)
    return made


def of_command(
    classifier: Path, pictures: list[Path], work: Path, *more: str
) -> tuple[list[dict[str, str]], str]:
    """Rows of ``tlpipe classify``, in order, and its rate."""
    listed, output = work / "pictures.csv", work / "predictions.csv"
    with listed.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["path"], *([str(path)] for path in pictures)])
    classes = tlpipe.inspect(classifier)
    said = tlpipe_command(
        "classify", classifier, listed, "-o", output, "--overwrite", "--allow-outside", "/",
        "--top-k", str(len(classes.facts["classes"])), "--device", "cpu", *more,
    )  # fmt: skip
    with output.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rate = re.search(r"at ([0-9,]+) images/s", said)
    return rows, rate.group(1) if rate else "?"


def of_page(site: Path, pictures: list[Path]) -> list[dict]:
    """What the page says, in order."""
    rows = []
    with open_browser() as browser, site_at(site) as address, page_of(browser, address) as seen:
        ready(seen.page)
        for start in range(0, len(pictures), AT_ONCE):
            rows += answers(seen.page, pictures[start : start + AT_ONCE])
        assert not seen.errors, seen.errors
        assert all(url.startswith(address) for url in seen.requests), seen.requests
    return rows


def probabilities(row: dict[str, str]) -> dict[str, float]:
    """By class, of a row of the command."""
    names = [name for name in row if re.fullmatch(r"class(_\d+)?", name)]
    return {row[name]: float(row[name.replace("class", "probability")]) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--classifier", type=Path, help="one that is there, in place of training")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--enlarge", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        classifier = arguments.classifier
        if classifier is None:
            classifier = work / "classifier.onnx"
            tlpipe_command(
                "train", arguments.source, "-o", classifier, "--precision", arguments.precision
            )
        pictures = chosen(arguments.source, arguments.images)
        pictures = enlarged(pictures, arguments.enlarge, work / "large")
        tlpipe.export_web(classifier, work / "site", runtime=os.environ.get("TLPIPE_ORT_WEB"))
        outputs = tlpipe.inspect(classifier).facts
        more = ["--unknown"] if "unknown" in outputs else []
        commanded, rate = of_command(classifier, pictures, work, *more)
        paged = of_page(work / "site", pictures)
    same, worst, unknowns, differing = 0, 0.0, 0, []
    for picture, ours, theirs in zip(pictures, commanded, paged, strict=True):
        if ours["status"] != "ok" or theirs["kind"] == "bad":
            differing.append(f"{picture}: {ours['status']}, {theirs}")
            continue
        expected, found = probabilities(ours), theirs["probabilities"]
        difference = max(abs(expected[k] - found[k]) for k in found)
        same += max(expected, key=expected.get) == max(found, key=found.get)
        unknowns += more == [] or (ours["unknown"] == "true") == (theirs["kind"] == "unknown")
        worst = max(worst, difference)
        if difference > TOLERANCE:
            differing.append(f"{picture}: {difference:.4f}")
    milliseconds = [row["ms"] for row in paged if row["kind"] != "bad"]
    print(f"pictures                {len(pictures)}")
    print(f"same most probable class {same / len(pictures):.1%}")
    print(f"same said of unknown    {unknowns / len(pictures):.1%}")
    print(f"greatest difference     {worst:.5f} of a probability")
    print(f"page                    {statistics.median(milliseconds):.0f} ms per picture (median)")
    print(f"command                 {rate} images/s, on all cores")
    for line in differing:
        print(f"differs: {line}")


if __name__ == "__main__":
    main()
