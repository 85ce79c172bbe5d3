"""Lists on standard input, and images that a program gives one by one."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import tlpipe
from conftest import Trained, write_image
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import OptionError, OutputError, SourceError
from tlpipe.stages.decode import decode, picture_of
from tlpipe.stages.source import Source, listed, open_source
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.given import Kept
from tlpipe.stages.source.listed import open_listed
from tlpipe.stages.source.pictures import encoded
from tlpipe.stages.store import read_features
from tlpipe.types import FileStat, Reason, Reject, Split


def names(source: Source) -> list[str]:
    return [key for block in source.scan(stats=True) for key in block.keys]


# Standard input


def listing(data: bytes) -> Source:
    return open_listed(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"a.jpg\nb c.jpg\n", ["a.jpg", "b c.jpg"]),
        (b"a.jpg\r\n\r\nb.jpg", ["a.jpg", "b.jpg"]),
        (b"a\nb.jpg\0c.jpg\0", ["a\nb.jpg", "c.jpg"]),
        (b"\xef\xbb\xbfa.jpg\n", ["a.jpg"]),
        (b"\xff.jpg\n", ["\\xff.jpg"]),
    ],
)
def test_a_list(data: bytes, keys: list[str]) -> None:
    source = listing(data)
    assert names(source) == keys
    assert names(source) == keys  # it is read once and can be listed again


def test_what_a_list_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = write_image(tmp_path / "a.png", 1)
    source = listing(f"a.png\n{image}\nhttp://10.0.0.1/x.png\ns3://b/x\nfile:///y.png\n".encode())
    monkeypatch.chdir("/")
    (block,) = source.scan(stats=True)
    inside = [Address(url, inside=True) for url in ("http://10.0.0.1/x.png", "s3://b/x")]
    assert block.places == [str(image), str(image), *inside, "/y.png"]
    assert block.stats == [(image.stat().st_size, image.stat().st_mtime_ns)] * 2 + [(-1, -1)] * 3
    assert source.reader.read(block.places[0])[0] == image.read_bytes()  # type: ignore[index]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no image"),
        (b"\n\n", "holds no image"),
        (b"a" * 100_000 + b"\n" + b"x\0y\n", None),
        (b"ok\nftp://h/x\n", "Line 2 of standard input: The address 'ftp://h/x' is of no kind"),
        (b"x" * ((1 << 20) + 1), "more than 1,048,576 bytes"),
        (b"x" * (3 << 20), "more than 1,048,576 bytes"),
        (b"a\n" + b"\n" * (1 << 20) + b"x\0\n", "Line 1048578 of standard input holds a NUL"),
    ],
)
def test_wrong_lists(data: bytes, message: str | None) -> None:
    if message is None:
        assert len(names(listing(data))) == 2
        return
    with pytest.raises(SourceError, match=message):
        names(listing(data))


def test_nothing_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(OptionError, match="nothing is connected"):
        open_source("-")


def test_a_million_lines_cost_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Many(io.RawIOBase):
        left = 40

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return b"/photos/0000000000000000.jpg\n" * 2000 if self.left >= 0 else b""

    monkeypatch.setattr(listed, "file_stat", lambda path: (0, 0))
    source = open_listed(Many())  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        count = sum(len(block) for block in source.scan(stats=False))
        assert count == 80_000
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_the_command_line_takes_a_list(trained: Trained, photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:5]
    out = tmp_path / "p.csv"
    code = "from tlpipe.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "classify", str(trained.classifier), "-", "-o", str(out)],
        input=b"\0".join(os.fsencode(path) for path in paths),
        capture_output=True,
        check=True,
    )
    assert b"standard input" in done.stderr + done.stdout
    rows = out.read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(path) for path in paths]


def test_a_terminal_is_wrong_usage(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlpipe.cli.options.terminal", lambda: True)
    run = CliRunner().invoke(cli, ["classify", str(trained.classifier), "-", "-o", "x.csv"])
    assert run.exit_code == 2
    assert "print0" in run.output


@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_standard_input_may_be_closed(trained: Trained, tmp_path: Path, command: str) -> None:
    code = "import sys; sys.stdin = None; from tlpipe.cli import main; main()"
    given = ["-", "-o", "f.h5"] if command == "embed" else [str(trained.classifier), "-"]
    done = subprocess.run(
        [sys.executable, "-c", code, command, *given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "nothing is connected to it" in done.stderr
    assert "Traceback" not in done.stderr


# Images given one by one


def test_each_way_to_give_an_image(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", 1)
    image = Image.open(path)
    pixels = np.asarray(image)
    source = open_source(
        [
            path,
            str(path),
            path.read_bytes(),
            image,
            pixels,
            ("mine", pixels),
            {"image": path, "key": "k", "label": "red", "split": "val"},
            {"image": image, "label": 3, "split": Split.TEST},
            "https://example.org/x.png",
        ]
    )
    assert names(source)[:6] == [str(path), str(path), "2", "3", "4", "mine"]
    items = list(source.items())
    assert [item.key for item in items[6:]] == ["k", "7", "https://example.org/x.png"]
    assert [(i.label, i.split) for i in items[6:8]] == [
        ("red", Split.VALIDATION),
        ("3", Split.TEST),
    ]
    assert items[8].place == Address("https://example.org/x.png", inside=True)
    for item in items[:8]:
        read = source.reader.read(item.place)
        assert not isinstance(read, Reject)
        found = decode(read[0], FileStat())
        assert not isinstance(found, Reject)
        assert np.array_equal(np.asarray(found.image), pixels)
    assert source.survey.by_split() == {Split.NONE: 7, Split.VALIDATION: 1, Split.TEST: 1}


def shapes() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)):
        yield rng.integers(0, 256, shape, np.uint8)
    colour = Image.fromarray(rng.integers(0, 256, (6, 9, 4), np.uint8), "RGBA")
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"):
        base = colour if mode in ("LA", "RGBA") else colour.convert("RGB")
        yield base.convert("LA").convert("PA") if mode == "PA" else base.convert(mode)
    grey = rng.integers(0, 65536, (6, 9), np.uint16)
    yield Image.fromarray(grey)
    yield Image.fromarray(grey.astype(np.int32))
    yield Image.fromarray(grey.astype(np.int32) - 9)
    yield Image.fromarray(grey.astype(np.float32))
    turned = colour.convert("RGB")
    turned.getexif()[0x0112] = 6
    yield turned
    keyed = colour.convert("P")
    keyed.info["transparency"] = 3
    yield keyed


@pytest.mark.parametrize(
    "image", list(shapes()), ids=lambda image: str(getattr(image, "mode", "array"))
)
def test_an_image_in_memory_keeps_its_pixels(image: Any) -> None:
    plain = image[..., 0] if getattr(image, "shape", ())[2:] == (1,) else image
    wanted, found = picture_of(plain), decode(encoded(image), FileStat())
    if isinstance(wanted, Reject):
        assert isinstance(found, Reject)
        assert found.reason is wanted.reason
        return
    assert not isinstance(found, Reject)
    assert np.array_equal(np.asarray(found.image), np.asarray(wanted.image))
    assert found.turn == wanted.turn


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3.5, "Number 1 .* is no image, but a float"),
        (None, "is no image, but a NoneType"),
        (np.zeros((2, 2), np.float32), r"a ndarray of shape \(2, 2\), float32"),
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\), uint8"),
        (np.zeros((0, 2, 3), np.uint8), r"shape \(0, 2, 3\)"),
        (("a", "b", "c"), "a tuple of 3, not of 2"),
        ((1, b"x"), "has the key 1"),
        (("", b"x"), "has the key ''"),
        (("a\0", b"x"), "has the key"),
        (("\ud800", b"x"), "has the key"),
        ("\ud800.jpg", "has the key"),
        ("", "has the key"),
        ({"key": "x"}, "has no 'image'"),
        ({"image": b"x", "path": "y", 3: 4}, "has the unknown fields '?\"?'path', 3|3, 'path'"),
        ({"image": b"x", "label": 1.5}, "has the label 1.5"),
        ({"image": b"x", "label": True}, "has the label True"),
        ({"image": b"x", "split": "most"}, "has the split 'most'"),
        ("ftp://h/x", "is of no kind that is read"),
    ],
)
def test_what_is_no_image(given: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        names(open_source([b"x", given]))


@pytest.mark.parametrize("given", [b"x", 3, None, {"image": b"x"}])
def test_what_is_no_source(given: Any) -> None:
    with pytest.raises(OptionError):
        open_source(given)


def test_an_iterator_is_asked_once_and_its_errors_are_heard() -> None:
    asked = []

    def images() -> Iterator[bytes]:
        for number in range(9000):
            asked.append(number)
            yield b"%d" % number
        raise ZeroDivisionError("oops")

    source = open_source(images())
    assert not asked
    blocks = source.scan(stats=False)
    assert len(next(blocks)) == 4096
    assert len(asked) == 4096
    blocks.close()
    with pytest.raises(ZeroDivisionError):
        names(source)
    with pytest.raises(SourceError, match=r"ended early, after 9,000: ZeroDivisionError\('oops'\)"):
        names(source)
    assert asked == list(range(9000))
    with pytest.raises(SourceError, match="holds no image"):
        names(open_source(iter([])))


def test_a_damaged_image_costs_one_row(tmp_path: Path) -> None:
    whole = write_image(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(whole.read_bytes()[:300])
    with Image.open(tmp_path / "b.png") as cut, Image.open(whole) as good:
        source = open_source([cut, good, b"", b"no image"])
        found = [source.reader.read(item.place) for item in source.items()]
    assert isinstance(found[0], Reject)
    assert found[0].reason is Reason.CORRUPT
    assert [not isinstance(read, Reject) for read in found] == [False, True, True, True]
    with pytest.raises(SourceError, match="another one cannot read them"):
        pickle.dumps(source.reader)


def test_no_room_for_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        open_source([b"x"])


def test_images_in_memory_make_the_same_classifier(
    photos: Path, trained: Trained, tiny_card: Card, tmp_path: Path
) -> None:
    paths = sorted(photos.rglob("*.png"))

    def images() -> Iterator[dict[str, Any]]:
        for path in paths:
            key = path.relative_to(photos).as_posix()
            yield {"image": np.asarray(Image.open(path)), "key": key, "label": path.parent.name}

    source = tlpipe.source(images())
    run = tlpipe.train(source, tmp_path / "c.onnx", backbone=tiny_card)
    assert run.embedded.count == len(paths)
    mine, theirs = read_features(run.embedded.path), read_features(trained.features)
    assert np.array_equal(mine.vectors, theirs.vectors)
    assert list(mine.keys) == list(theirs.keys)
    out = tmp_path / "p.jsonl"
    assert tlpipe.classify(trained.classifier, source, out).count == len(paths)
    assert json.loads(out.read_text().splitlines()[0])
    assert tlpipe.evaluate(trained.classifier, source).metrics.accuracy > 0.5
    again = tlpipe.embed(source, run.embedded.path, backbone=tiny_card)
    assert (again.embedded, again.copied) == (0, len(paths))
    assert isinstance(next(source.items()).place, Kept)
