"""What a report costs: time, memory, size of the page, and how soon a browser paints it.

Run: ``make bench-report SOURCE=folder [IMAGES=10000]`` with a folder of a folder per class. Each of
its images gives as many others as it takes, random crops encoded anew, so that no two have the same
content; many of them are near-duplicates, as in a data set that nobody has cleaned, and the search
for them has more to do. They are embedded and a classifier is trained, once, in the folder
``--folder``, which is kept for the next run. Then, in each round and each in a process of its own:
``tlpipe report`` with thumbnails; and the peer, which does no more than decode the same images with
Pillow, at the scale that a thumbnail needs, on as many threads. The page is opened by Chromium with
an empty cache.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from children import run
from conditions import Others, conditions
from insides import usable_cores
from PIL import Image

import tlpipe
from browser import installed, open_browser

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}

PEER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image

def decode(path):
    with Image.open(path) as image:
        image.draft("RGB", (96, 96))
        image.load()

with ThreadPoolExecutor(int(sys.argv[2])) as pool:
    list(pool.map(decode, Path(sys.argv[1]).rglob("*.jpg")))
"""

PAINT = """() => new Promise((done, failed) => {
    setTimeout(() => failed("nothing was painted within a minute"), 60000);
    new PerformanceObserver(list => {
        const first = list.getEntries().find(e => e.name === 'first-contentful-paint');
        if (first) done(first.startTime);
    }).observe({type: 'paint', buffered: true});
})"""


def make_images(source: Path, folder: Path, count: int) -> None:
    """Write `count` images: crops of those of `source`, in the same classes."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"There is no image in {source}.")
    for name in {path.relative_to(source).parts[0] for path in found}:
        (folder / name).mkdir(parents=True, exist_ok=True)

    def make(number: int) -> None:
        path = found[number % len(found)]
        target = folder / path.relative_to(source).parts[0] / f"{number:06d}.jpg"
        rng = np.random.default_rng(number)
        with Image.open(path) as image:
            width, height = image.size
            part = rng.uniform(0.6, 0.95)
            left, top = (1 - part) * rng.uniform(0, width), (1 - part) * rng.uniform(0, height)
            box = tuple(map(round, (left, top, left + part * width, top + part * height)))
            image.convert("RGB").crop(box).save(target, "JPEG", quality=90)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(make, range(count)))


def prepared(source: Path, folder: Path, count: int) -> tuple[Path, Path, Path]:
    """Images, features and classifier; made where they are not there yet."""
    folder = folder / f"report-{source.resolve().name}-{count}"
    images, features, classifier = folder / "images", folder / "f.h5", folder / "c.onnx"
    if not classifier.exists():
        make_images(source, images, count)
        tlpipe.embed(images, features)
        tlpipe.train_head(features, classifier, overwrite=True)
    return images, features, classifier


def first_paint_s(page: Path) -> float | None:
    """Seconds from opening the page to what is first painted; None without a browser."""
    if installed() is None:
        return None
    with open_browser() as browser:
        opened = browser.new_page()
        opened.goto(page.resolve().as_uri(), wait_until="commit")
        return float(opened.evaluate(PAINT)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    arguments = parser.parse_args()
    images, features, classifier = prepared(arguments.source, arguments.folder, arguments.images)
    page = features.with_name("report.html")
    for name, value in conditions().items():
        print(f"{name:14}{value}")
    others = Others()
    command = str(Path(sys.executable).with_name("tlpipe"))
    ours, peers, paints, peak = [], [], [], 0
    for _ in range(arguments.rounds):
        files = [str(features), str(classifier), "-o", str(page), "--overwrite"]
        done = run([command, "report", *files, "--images", str(arguments.images)])
        ours.append(done.seconds)
        peak = max(peak, done.peak_bytes)
        peers.append(run([sys.executable, "-c", PEER, str(images), str(usable_cores())]).seconds)
        paint = first_paint_s(page)
        paints += [] if paint is None else [paint]
    print(f"{'others':14}{others.told()}")
    ratios = [a / b for a, b in zip(ours, peers, strict=True)]
    print(f"report        {statistics.median(ours):.1f} s ({min(ours):.1f} to {max(ours):.1f})")
    print(f"peak memory   {peak / 1e6:.0f} MB")
    print(f"page          {page.stat().st_size / 1e6:.2f} MB")
    print(f"decoding      {statistics.median(peers):.1f} s alone")
    print(f"ratio         {statistics.median(ratios):.2f}")
    if paints:
        print(f"first paint   {statistics.median(paints):.2f} s ({max(paints):.2f} at most)")
    else:
        print("first paint   not measured: there is no Chromium")


if __name__ == "__main__":
    main()
