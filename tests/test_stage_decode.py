from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stored import read_file
from tlpipe.picture import Picture
from tlpipe.stages.decode import decode, formats, quiet_pillow
from tlpipe.types import FileStat, Reason, Reject, Stage

RED, GREEN = (250, 10, 10), (10, 200, 30)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def decoded(path: Path) -> Picture | Reject:
    read = read_file(path)
    return read if isinstance(read, Reject) else decode(read[0], read[1].stat)


def pixels(path: Path) -> np.ndarray:
    result = decoded(path)
    assert isinstance(result, Picture), result
    assert result.image.mode == "RGB"
    return np.asarray(result.image if result.turn is None else result.image.transpose(result.turn))


def reject(path: Path) -> Reject:
    with quiet_pillow():
        result = decoded(path)
    assert isinstance(result, Reject)
    return result


def halves() -> Image.Image:
    """Red on the left, green on the right."""
    array = np.zeros((20, 40, 3), np.uint8)
    array[:, :20], array[:, 20:] = RED, GREEN
    return Image.fromarray(array)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "ppm", "gif", "tga", "qoi"])
def test_common_formats(tmp_path: Path, kind: str) -> None:
    if kind.upper() not in formats():
        pytest.fail(f"this Pillow cannot read {kind}")
    options = {"lossless": True} if kind == "webp" else {}
    try:
        path = saved(tmp_path / f"x.{kind}", halves(), **options)
    except (KeyError, ValueError):
        pytest.fail(f"this Pillow cannot write {kind}")
    found = pixels(path)
    assert found.shape == (20, 40, 3)
    np.testing.assert_allclose(found[10, 5], RED, atol=3)
    np.testing.assert_allclose(found[10, 35], GREEN, atol=3)


def test_content_hash_and_stat(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", halves())
    result = read_file(path)
    assert isinstance(result, tuple)
    content = result[1]
    assert content.sha256 == hashlib.sha256(path.read_bytes()).digest()
    stat = path.stat()
    assert (content.stat.size_bytes, content.stat.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_orientation_is_applied(tmp_path: Path, orientation: int, kind: str) -> None:
    """The file holds the picture turned so that its orientation tag turns it back."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = halves()
    image.paste((0, 0, 255), (0, 0, 40, 5))  # a blue top, so that all eight differ
    turned = image.transpose(undo[orientation]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"x.{kind}", turned, exif=exif)
    found = pixels(path)
    assert found.shape == (20, 40, 3)
    np.testing.assert_allclose(found[2, 20], (0, 0, 255), atol=40)
    np.testing.assert_allclose(found[12, 5], RED, atol=40)
    np.testing.assert_allclose(found[12, 35], GREEN, atol=40)


def test_a_damaged_exif_block_costs_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", halves(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with quiet_pillow():
        assert pixels(path).shape == (20, 40, 3)


def test_grey_and_bilevel(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((4, 4), 77, np.uint8))
    assert (pixels(saved(tmp_path / "grey.png", grey)) == 77).all()
    bits = Image.new("1", (4, 4), 1)
    assert (pixels(saved(tmp_path / "bits.png", bits)) == 255).all()


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_grey_of_16_bits_is_scaled(tmp_path: Path, kind: str) -> None:
    """Clipping at 255, as a plain conversion did for years, would give white."""
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    path = tmp_path / f"x.{kind}"
    if kind == "pgm":
        path.write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    np.testing.assert_array_equal(pixels(path)[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_colour_they_hide(tmp_path: Path, mode: str) -> None:
    array = np.zeros((2, 2, 4), np.uint8)
    array[0] = (200, 200, 200, 0)  # fully transparent
    array[1] = (90, 90, 90, 255)  # opaque
    image = Image.fromarray(array, "RGBA") if mode == "RGBA" else None
    if mode == "LA":
        image = Image.fromarray(array).convert("LA")
    if mode == "P":
        image = Image.new("P", (2, 2), 1)
        image.putpalette([200, 200, 200, 90, 90, 90])
        image.paste(0, (0, 0, 2, 1))
        image.info["transparency"] = 0
    assert image is not None
    found = pixels(saved(tmp_path / "x.png", image))
    assert (found[0] == 255).all()
    assert (found[1] == 90).all()


def test_half_transparency_is_blended_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert pixels(saved(tmp_path / "x.png", image))[0, 0].tolist() == [127, 127, 127]


def test_a_colour_key_is_transparent(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), GREEN)
    path = saved(tmp_path / "x.png", image, transparency=GREEN)
    assert pixels(path)[0].tolist() == [list(RED), [255, 255, 255]]


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = pixels(saved(tmp_path / "x.jpg", image, quality=100))
    np.testing.assert_allclose(found[8, 8], (255, 0, 0), atol=6)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    path = saved(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(pixels(path)[0, 0], RED, atol=3)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    halves().save(tmp_path / "x.png")
    path = (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert pixels(path).shape == (20, 40, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"<html>not found</html>", Reason.NOT_AN_IMAGE),
        (b"\x89PNG\r\n\x1a\n", Reason.NOT_AN_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", Reason.NOT_AN_IMAGE),
    ],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, reason: Reason) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    found = reject(path)
    assert (found.stage, found.reason) == (Stage.DECODE, reason)
    assert found.stat.size_bytes == len(content)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "gif"])
def test_a_truncated_image(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    path = saved(tmp_path / f"x.{kind}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert reject(path).reason in (Reason.TRUNCATED, Reason.CORRUPT, Reason.NOT_AN_IMAGE)


def test_a_truncated_jpeg_is_called_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", halves())
    path.write_bytes(path.read_bytes()[:-200])
    assert reject(path).reason is Reason.TRUNCATED


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(
    kind=st.sampled_from(["jpeg", "png", "gif", "tiff", "webp", "bmp", "ppm", "tga"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    keep=st.floats(0, 1),
)
def test_no_content_raises(
    tmp_path: Path, kind: str, flips: list[tuple[float, int]], keep: float
) -> None:
    stream = io.BytesIO()
    halves().save(stream, kind)
    data = bytearray(stream.getvalue())
    for where, mask in flips:
        data[int(where * len(data))] ^= mask
    path = tmp_path / "fuzz"
    path.write_bytes(data[: int(keep * len(data))])
    with quiet_pillow():
        result = decoded(path)
    assert isinstance(result, Reject) or result.image.mode == "RGB"


def bomb(path: Path, side: int) -> Path:
    """PNG header that promises side x side pixels."""
    data = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + data
    crc = struct.pack(">I", zlib.crc32(chunk))
    idat = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + crc + idat)
    return path


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    found = reject(bomb(tmp_path / "x.png", 60_000))
    assert found.reason is Reason.TOO_LARGE


def test_our_own_limit_holds_where_pillow_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    found = reject(bomb(tmp_path / "x.png", 60_000))
    assert (found.reason, found.detail) == (
        Reason.TOO_LARGE,
        "60000 x 60000 pixels; the limit is 178956970.",
    )


def test_a_file_of_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlpipe.stages.source.reading.MAX_FILE_BYTES", 100)
    path = saved(tmp_path / "x.bmp", halves())
    assert reject(path).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2), 0.5, np.float32), "Pixels of mode 'F' have no defined way to RGB."),
        (np.full((2, 2), 70_000, np.int32), "Grey values of 32 bits have no defined white."),
    ],
)
def test_pixels_without_a_way_to_rgb(tmp_path: Path, values: np.ndarray, message: str) -> None:
    found = reject(saved(tmp_path / "x.tiff", Image.fromarray(values)))
    assert (found.reason, found.detail) == (Reason.UNSUPPORTED, message)


def test_missing_folders_and_pipes(tmp_path: Path) -> None:
    assert reject(tmp_path / "none.jpg").reason is Reason.MISSING
    assert reject(tmp_path).reason is Reason.UNREADABLE
    assert reject(tmp_path / "a\0b.jpg").reason is Reason.UNREADABLE
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        found = reject(tmp_path / "pipe.jpg")  # would wait for ever if it were opened
        assert (found.stage, found.reason) == (Stage.SOURCE, Reason.UNREADABLE)


def png(header: bytes, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file made by hand, since Pillow writes no such ones."""
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    made = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        check = struct.pack(">I", zlib.crc32(kind + data))
        made += struct.pack(">I", len(data)) + kind + data + check
    return made


def test_colour_of_16_bits_keeps_its_high_bytes(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(png(header, b"\0" + struct.pack(">HHH", 0xFF00, 0x8012, 0x00FF)))
    np.testing.assert_array_equal(pixels(path)[0, 0], [255, 128, 0])


def test_a_transparent_colour_of_16_bits_is_white(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHHHHH", 0x1234, 0, 0, 0x8000, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(png(header, row, (b"tRNS", struct.pack(">HHH", 0x1234, 0, 0))))
    np.testing.assert_array_equal(pixels(path)[0], [[255, 255, 255], [128, 0, 0]])


def test_a_transparent_grey_of_16_bits_is_white(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    path = tmp_path / "x.png"
    row = b"\0" + struct.pack(">HH", 0, 257)
    path.write_bytes(png(header, row, (b"tRNS", struct.pack(">H", 0))))
    np.testing.assert_array_equal(pixels(path)[0, :, 0], [255, 1])


def test_white_may_be_nought_in_a_tiff(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535]], np.uint16)
    path = saved(tmp_path / "x.tiff", Image.fromarray(values), tiffinfo={262: 0})
    found = pixels(path)[0, :, 0].tolist()
    # Pillow inverts when it writes, too, or not: either way white on black must come back.
    stored = np.frombuffer(path.read_bytes(), "<u2")
    inverted = 65535 - values if 65278 in stored else values
    assert found == [255 - int(v) // 257 for v in inverted[0]]


def test_odd_exif_beside_the_orientation_costs_nothing(tmp_path: Path) -> None:
    """A resolution of another type than EXIF allows: Pillow could not write it again."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    path = saved(tmp_path / "x.jpg", halves(), exif=exif)
    data = path.read_bytes()
    entry = data.index(b"\x01\x1a\x00\x05") if b"\x01\x1a\x00\x05" in data else -1
    little = data.find(b"\x1a\x01\x05\x00")
    assert max(entry, little) > 0
    where, kind = (entry, b"\x01\x1a\x00\x07") if entry > 0 else (little, b"\x1a\x01\x07\x00")
    path.write_bytes(data[:where] + kind + data[where + 4 :])
    assert pixels(path).shape == (40, 20, 3)


def quarter(size: tuple[int, int]) -> int:
    return 4


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_a_jpeg_may_be_decoded_smaller(mode: str, options: dict[str, Any]) -> None:
    file = io.BytesIO()
    halves().resize((1203, 805)).convert(mode).save(file, "JPEG", **options)
    found = decode(file.getvalue(), FileStat(), quarter)
    assert isinstance(found, Picture)
    assert found.image.mode == "RGB"
    assert (found.size, found.reduction, found.image.size) == ((1203, 805), 4, (301, 202))


def test_a_photo_with_a_second_picture_may_be_decoded_smaller() -> None:
    """As phones write them: the format is then MPO."""
    file = io.BytesIO()
    photo = halves().resize((1203, 805))
    photo.save(file, "MPO", save_all=True, append_images=[photo.resize((20, 20))])
    found = decode(file.getvalue(), FileStat(), quarter)
    assert isinstance(found, Picture)
    assert (found.reduction, found.image.size) == (4, (301, 202))


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "bmp"])
def test_other_formats_are_decoded_whole(kind: str) -> None:
    file = io.BytesIO()
    halves().resize((1203, 805)).save(file, kind)
    found = decode(file.getvalue(), FileStat(), quarter)
    assert isinstance(found, Picture)
    assert (found.reduction, found.image.size) == (1, (1203, 805))


def test_cmyk_is_decoded_whole() -> None:
    file = io.BytesIO()
    halves().resize((1203, 805)).convert("CMYK").save(file, "JPEG")
    found = decode(file.getvalue(), FileStat(), quarter)
    assert isinstance(found, Picture)
    assert found.reduction == 1


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_jpeg_that_ends_early_is_found_at_any_scale(keep: float) -> None:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (800, 1200, 3), np.uint8)).save(file, "JPEG")
    raw = file.getvalue()
    for reduce in (None, quarter):
        found = decode(raw[: int(keep * len(raw))], FileStat(), reduce)
        assert isinstance(found, Reject)
        assert found.reason is Reason.TRUNCATED


def test_a_jpeg_of_one_pixel_stands_any_scale() -> None:
    for size in ((1, 1), (1, 900), (900, 1), (7, 9)):
        file = io.BytesIO()
        Image.new("RGB", size).save(file, "JPEG")
        assert isinstance(decode(file.getvalue(), FileStat(), lambda size: 1), Picture)
