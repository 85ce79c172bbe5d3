"""Makes photos of 12 megapixels from nothing, as a phone would: 4000 x 3000, JPEG, 2 to 4 MB.

Run by ``embed_rate.py``; alone: ``python tests/benchmarks/photos.py FOLDER [COUNT]``. What decides
the cost of decoding is the size and how many bits a photo takes, so these have what photos have: a
spectrum that falls as 1/f (noise of many octaves, each half as strong as the next larger), sharp
edges, and the fine noise of a sensor. The same number gives the same photo; two classes, by the
form of the edges, so that a classifier can be trained.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 4000, 3000
COUNT = 60
VERSION = 1  # change it when the same number would give another photo
QUALITY = 90
OCTAVES = 10
EDGES = 40
SENSOR_NOISE = 5.0  # standard deviation, in grey levels


def field(rng: np.random.Generator, octaves: int, strength: float) -> np.ndarray:
    """1/f noise (HEIGHT, WIDTH), float32, its finest octaves left out where `octaves` are fewer."""
    made = np.zeros((2, 2), np.float32)
    for octave in range(octaves):
        scale = 2 ** (OCTAVES - 1 - octave)
        size = (-(-WIDTH // scale), -(-HEIGHT // scale))
        made = np.asarray(Image.fromarray(made).resize(size, Image.Resampling.BICUBIC))
        made = made + rng.standard_normal(made.shape, np.float32) * (strength * 0.5**octave)
    if made.shape != (HEIGHT, WIDTH):
        made = np.asarray(Image.fromarray(made).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    return made


def edges(rng: np.random.Generator, *, round_ones: bool) -> Image.Image:
    """Flat shapes of few colours, large ones below small ones."""
    image = Image.new("RGB", (WIDTH, HEIGHT), tuple(rng.integers(60, 190, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for number in range(EDGES):
        across = 1600 / (1 + number / 4)
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        w, h = rng.uniform(0.3, 1, 2) * across
        colour = tuple(rng.integers(20, 235, 3).tolist())
        if round_ones:
            draw.ellipse((x - w, y - h, x + w, y + h), fill=colour)
        else:
            points = [
                (x - w, y - h / 2),
                (x + w / 2, y - h),
                (x + w, y + h / 2),
                (x - w / 3, y + h),
            ]
            draw.polygon(points, fill=colour)
    return image


def photo(number: int) -> Image.Image:
    """The photo of that number."""
    rng = np.random.default_rng(number)
    shapes = np.asarray(edges(rng, round_ones=number % 2 == 0), np.float32)
    light = field(rng, OCTAVES, 40.0)
    light += rng.standard_normal(light.shape, np.float32) * SENSOR_NOISE
    tint = [field(rng, OCTAVES - 3, 15.0) for _ in range(2)]
    colours = [light + tint[0], light, light + tint[1]]
    mixed = np.stack([shapes[..., i] + colour for i, colour in enumerate(colours)], axis=-1)
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def make_photos(folder: Path, count: int = COUNT) -> Path:
    """A folder of `count` photos in two classes, made once: what is there already is kept."""
    folder = folder / f"{count}-{VERSION}"
    for number in range(count):
        name = "round" if number % 2 == 0 else "straight"
        path = folder / name / f"{number:04d}.jpg"
        if path.exists():
            continue
        if number % 10 == 0:
            print(f"making photos of 12 megapixels: {number} of {count}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        photo(number).save(temporary, "JPEG", quality=QUALITY, subsampling="4:2:0")
        temporary.replace(path)
    return folder


if __name__ == "__main__":
    print(make_photos(Path(sys.argv[1]), *map(int, sys.argv[2:])))
