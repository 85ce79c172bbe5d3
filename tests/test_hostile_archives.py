"""Archives that are damaged, or made by someone who means harm: each row with its reason, soon."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

import tlpipe.stages.source.archive_reader as reader_module
from conftest import write_image
from tlpipe import RunOptions, embed
from tlpipe.card import Card
from tlpipe.errors import SourceError
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.source.reading import MAX_FILE_BYTES
from tlpipe.stages.store import FeatureFile
from tlpipe.types import Reject

Members = list[tuple[str, bytes]]

JPEG = b"x" * 700
THREE: Members = [("a/0.jpg", JPEG), ("b/1.jpg", JPEG), ("a/2.jpg", JPEG)]


def tar_bytes(members: Members, **changes: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_bytes(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def summed(header: bytes) -> bytes:
    """A tar header with its checksum put right."""
    blank = header[:148] + b" " * 8 + header[156:512]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    start = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0")
    return summed(
        (start + b"0" * 11 + b"\0" + b" " * 8 + kind).ljust(257, b"\0")
        + b"ustar\00000".ljust(255, b"\0")
    )


def read_all(source: Source) -> dict[str, str]:
    """Reason of each reject by key; empty for what can be read."""
    found: dict[str, str] = {}
    for block in source.scan(stats=True):
        for key, place, (size, time) in zip(block.keys, block.places, block.stats, strict=True):
            key.encode()
            assert "\0" not in key
            assert -(1 << 63) <= size < 1 << 63
            assert -(1 << 63) <= time < 1 << 63
            read = source.reader.read(place)
            found[key] = read.reason.value if isinstance(read, Reject) else ""
    return found


def reasons(path: Path) -> dict[str, str]:
    return read_all(open_source(path))


def test_every_cut_of_a_tar_keeps_what_stands_before_it(tmp_path: Path) -> None:
    whole = tar_bytes(THREE)
    path = tmp_path / "a.tar"
    names = [name for name, _ in THREE]
    for cut in range(1, 3 * 1536 + 1024, 100):
        write(path, whole[:cut])
        if cut < 512:
            with pytest.raises(SourceError, match="is no tar archive: it begins"):
                reasons(path)
            continue
        source = open_source(path)
        found = read_all(source)
        complete, rest = divmod(cut, 1536)
        inside = 512 <= rest < 1212 and complete < 3
        for name in names[:complete]:
            assert found.pop(name) == ""
        if inside:
            assert found == {names[complete]: "truncated"}
        elif rest >= 1212 and complete < 3:
            assert found == {names[complete]: ""}
        elif rest and complete < 3:
            assert found == {f"damaged at byte {complete * 1536}": "truncated"}
        if cut < 3 * 1536:
            assert source.survey.notices or "truncated" in found.values()


def test_a_cut_within_what_is_no_image_is_a_row_too(tmp_path: Path) -> None:
    whole = tar_bytes([*THREE, ("x.json", JPEG), ("a/3.jpg", JPEG)])
    found = reasons(write(tmp_path / "a.tar", whole[: 3 * 1536 + 600]))
    assert found.pop("damaged at byte 4608") == "truncated"
    assert set(found.values()) == {""}


@pytest.mark.parametrize("at", [148, 124, 0])
def test_a_damaged_header_costs_one_row_and_that_member(tmp_path: Path, at: int) -> None:
    content = bytearray(tar_bytes(THREE))
    content[1536 + at] ^= 0x55
    source = open_source(write(tmp_path / "a.tar", bytes(content)))
    assert read_all(source) == {"a/0.jpg": "", "damaged at byte 1536": "corrupt", "a/2.jpg": ""}
    first = bytearray(tar_bytes(THREE))
    first[148] ^= 0x55
    found = reasons(write(tmp_path / "b.tar", bytes(first)))
    assert found == {"damaged at byte 0": "corrupt", "b/1.jpg": "", "a/2.jpg": ""}


@pytest.mark.parametrize(
    "size",
    [
        b"\x80" + b"\xff" * 11,  # 2^88 - 1
        b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7,  # beyond what an offset may be
        b"77777777777",
        b"\xff" * 12,  # negative
        b"-0000000001",
        b"0_1",
        b"0x10",
        b"9",
    ],
)
def test_sizes_that_lie(tmp_path: Path, size: bytes) -> None:
    content = tar_bytes(THREE)[:1536] + header(b"b/lie.jpg", size) + tar_bytes(THREE)
    found = reasons(write(tmp_path / "a.tar", content))
    assert found["a/0.jpg"] == ""
    bad = {key: reason for key, reason in found.items() if reason}
    assert bad in ({"b/lie.jpg": "truncated"}, {"damaged at byte 1536": "corrupt"})


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"x", b"30 path=a/x.jpg\n"),  # longer than it is
        (b"x", b"path=a/x.jpg\n"),
        (b"x", b"9 path\nx\n\n"),
        (b"x", b"18 size=123456abc\n"),
        (b"x", b"00000000000000000 path\n"),
        (b"L", b"a" * 5000),
    ],
)
def test_damaged_long_names(tmp_path: Path, kind: bytes, content: bytes) -> None:
    meta = header(b"meta", b"%011o" % len(content), kind)
    padded = content.ljust(-(-len(content) // 512) * 512, b"\0")
    found = reasons(write(tmp_path / "a.tar", meta + padded + tar_bytes(THREE)))
    assert [key for key, reason in found.items() if reason == "corrupt"] == ["damaged at byte 0"]
    assert {key for key, reason in found.items() if not reason} == {name for name, _ in THREE}


def test_long_names_of_any_size_are_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as stream:
        stream.write(tar_bytes(THREE)[: 3 * 1536] + header(b"meta", b"77777777777", b"L"))
        stream.truncate(200 << 20)
    tracemalloc.start()
    found = reasons(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.pop("damaged at byte 4608") == "corrupt"
    assert set(found.values()) == {""}
    assert peak < 16 << 20


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_that_are_no_utf8(tmp_path: Path, kind: int) -> None:
    long = "a/" + "n" * 300 + ".jpg"
    odd = b"a/\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        for name in (long, odd, "a/ü.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"xyz"))
    assert reasons(path) == {long: "", "a/\\xff\\xfe.jpg": "", "a/ü.jpg": ""}


def test_pax_sizes_and_nul_in_names(tmp_path: Path) -> None:
    records = b"17 path=a/\0x.jpg\n" + b"9 size=3\n" + b"11 a=b=c=d\n"
    meta = header(b"meta", b"%011o" % len(records), b"x") + records.ljust(512, b"\0")
    content = meta + header(b"short.jpg", b"77777777777") + b"xyz".ljust(512, b"\0") + bytes(1024)
    assert reasons(write(tmp_path / "a.tar", content)) == {"a/\\x00x.jpg": ""}


def test_links_and_special_files_of_a_tar_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
        ):
            info = tarfile.TarInfo(f"a/link{number}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("a/0.jpg"))
    source = open_source(path)
    assert read_all(source) == {"a/0.jpg": ""}
    assert source.survey.skipped == {
        "link inside an archive": 2,
        "special file inside an archive": 2,
    }


def test_sparse_files_are_rejects(tmp_path: Path) -> None:
    old = bytearray(header(b"a/sparse.jpg", b"00000001000", b"S"))
    old[482] = 1
    more = bytes(504) + b"\1" + bytes(7) + bytes(512)
    records = b"22 GNU.sparse.major=1\n" + b"29 GNU.sparse.name=a/new.jpg\n"
    new = header(b"meta", b"%011o" % len(records), b"x") + records.ljust(512, b"\0")
    new += header(b"GNUSparseFile.0/x", b"00000001000") + bytes(512)
    content = summed(bytes(old)) + more + bytes(512) + new + tar_bytes(THREE)
    found = reasons(write(tmp_path / "a.tar", content))
    assert found == {
        "a/sparse.jpg": "unreadable",
        "a/new.jpg": "unreadable",
        **{name: "" for name, _ in THREE},
    }


def test_archives_put_one_behind_the_other_are_said(tmp_path: Path) -> None:
    both = tar_bytes(THREE) + tar_bytes([("c/9.jpg", JPEG)])
    source = open_source(write(tmp_path / "a.tar", both))
    assert len(read_all(source)) == 3
    assert "what stands behind that is not read" in source.survey.notices[0]


OUTSIDE = ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "C:/x.jpg", "..\\x.jpg"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_outside_are_rejects(tmp_path: Path, kind: str) -> None:
    members = [*THREE, *((name, JPEG) for name in OUTSIDE), ("../.x", b""), ("/x.txt", b"")]
    content = tar_bytes(members) if kind == "tar" else zip_bytes(members)
    source = open_source(write(tmp_path / f"a.{kind}", content))
    found = read_all(source)
    bad = [key for key, reason in found.items() if reason == "unreadable"]
    assert bad == [
        name.replace("\\", "/") if kind == "zip" and os.name == "nt" else name for name in OUTSIDE
    ]
    assert len(found) == 8
    assert source.survey.classes == ["a", "b"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_one_row_and_a_reject(
    tmp_path: Path, tiny_card: Card, kind: str
) -> None:
    images = [write_image(tmp_path / f"{i}.png", i).read_bytes() for i in range(3)]
    members = [("a/0.png", images[0]), ("./a/0.png", images[1]), ("b/1.png", images[2])]
    content = tar_bytes(members) if kind == "tar" else zip_bytes(members)
    path = write(tmp_path / f"a.{kind}", content)
    result = embed(path, tmp_path / "a.h5", backbone=tiny_card)
    assert result.count == 2
    assert result.rejects == {"duplicate-key": 1}


def test_a_damaged_archive_makes_a_feature_file_with_its_rejects(
    tmp_path: Path, tiny_card: Card
) -> None:
    image = write_image(tmp_path / "0.png", 0).read_bytes()
    members = [(f"{'ab'[i % 2]}/{i}.png", image + bytes([i])) for i in range(6)]
    content = bytearray(tar_bytes(members))
    path = write(tmp_path / "a.tar", bytes(content[: len(content) // 2]))
    result = embed(path, tmp_path / "a.h5", backbone=tiny_card, options=RunOptions(max_rejects=1))
    assert result.count + result.rejects.total() == result.survey.count
    with FeatureFile(tmp_path / "a.h5") as file:
        assert file.reject_count == result.rejects.total()


def test_one_of_several_archives_that_is_none_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", tar_bytes(THREE[:1]))
    write(tmp_path / "1.tar", b"not a tar at all" * 100)
    write(tmp_path / "2.tar", b"")
    write(tmp_path / "3.zip", b"PK")
    write(tmp_path / "4.tar", tar_bytes(THREE[1:]))
    assert reasons(tmp_path) == {
        "0.tar/a/0.jpg": "",
        "1.tar/damaged at byte 0": "corrupt",
        "2.tar/damaged at byte 0": "corrupt",
        "3.zip/damaged at byte 0": "corrupt",
        "4.tar/b/1.jpg": "",
        "4.tar/a/2.jpg": "",
    }


def entry_at(content: bytes, number: int) -> int:
    at = content.find(b"PK\1\2")
    for _ in range(number):
        at = content.find(b"PK\1\2", at + 1)
    return at


def changed(content: bytes, offset: int, layout: str, *values: int) -> bytes:
    """The content, with the field at `offset` of the second directory entry replaced."""
    packed = bytearray(content)
    struct.pack_into(layout, packed, entry_at(content, 1) + offset, *values)
    return bytes(packed)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "reason"),
    [
        (16, "<I", 1, "corrupt"),  # checksum
        (24, "<I", 699, "corrupt"),  # sizes that are too small or too large
        (24, "<I", 701, "corrupt"),
        (24, "<I", 0, "corrupt"),
        (24, "<I", 1 << 20, "corrupt"),  # more than deflate can make
        (24, "<I", MAX_FILE_BYTES + (1 << 21), "too-large"),
        (24, "<I", 0xFFFFFFFE, "too-large"),
        (20, "<I", 1, "corrupt"),  # packed size
        (20, "<I", 1000, "corrupt"),  # into the directory
        (8, "<H", 1, "unreadable"),  # encrypted
        (10, "<H", 12, "unreadable"),  # bzip2
        (10, "<H", 0, "corrupt"),  # stored, they say
        (42, "<I", 0, "corrupt"),  # on top of the first
        (42, "<I", 5, "corrupt"),
        (42, "<I", 0x7FFFFFFF, "corrupt"),
    ],
)
def test_lies_of_a_zip_cost_one_row(
    tmp_path: Path, offset: int, layout: str, value: int, reason: str
) -> None:
    content = changed(zip_bytes(THREE), offset, layout, value)
    found = reasons(write(tmp_path / "a.zip", content))
    assert found == {"a/0.jpg": "", "b/1.jpg": reason, "a/2.jpg": ""}


def test_damage_in_a_zips_members(tmp_path: Path) -> None:
    whole = zip_bytes(THREE)
    start = whole.find(b"PK\3\4", 1)
    for at in (start, start + 26, start + 30 + 7):
        content = bytearray(whole)
        content[at] ^= 0xFF
        found = reasons(write(tmp_path / "a.zip", bytes(content)))
        assert found == {"a/0.jpg": "", "b/1.jpg": "corrupt", "a/2.jpg": ""}


def test_a_bomb_is_never_unpacked(tmp_path: Path) -> None:
    """100 MB of zeros that say they are 700 bytes."""
    content = bytearray(zip_bytes([("a/0.jpg", JPEG), ("b/1.jpg", bytes(100 << 20))]))
    struct.pack_into("<I", content, entry_at(bytes(content), 1) + 24, 700)
    path = write(tmp_path / "a.zip", bytes(content))
    tracemalloc.start()
    found = reasons(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"a/0.jpg": "", "b/1.jpg": "corrupt"}
    assert peak < 8 << 20


def test_a_declared_bomb_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_FILE_BYTES", 1 << 20)
    path = write(tmp_path / "a.zip", zip_bytes([("0.jpg", bytes(2 << 20)), ("1.jpg", JPEG)]))
    assert reasons(path) == {"0.jpg": "too-large", "1.jpg": ""}
    tar = write(tmp_path / "a.tar", tar_bytes([("0.jpg", bytes(2 << 20)), ("1.jpg", JPEG)]))
    assert reasons(tar) == {"0.jpg": "too-large", "1.jpg": ""}


def test_members_that_share_bytes_are_rejects_in_any_order(tmp_path: Path) -> None:
    """One kernel that a thousand entries of the directory point to."""
    content = zip_bytes([("k.jpg", os.urandom(5000)), ("z.jpg", JPEG)])
    at = entry_at(content, 0)
    first, second = content[at : entry_at(content, 1)], content[entry_at(content, 1) :]
    second, end = second[: 46 + 5], second[46 + 5 :]
    directory = (first + second) * 500
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1000, 1000, len(directory), at, 0)
    assert len(end) == len(tail)
    source = open_source(write(tmp_path / "a.zip", content[:at] + directory + tail))
    outcomes = [
        isinstance(source.reader.read(place), Reject)
        for block in source.scan(stats=True)
        for place in block.places
    ]
    assert len(outcomes) == 1000
    assert outcomes.count(False) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole[:-30], "the directory that stands at the end"),
        (lambda whole: b"", "the directory that stands at the end"),
        (lambda whole: b"PK\5\6" * 5000, "several volumes"),
        (lambda whole: whole[:-22] + b"x" + whole[-22:], "directory is damaged|should have"),
        (lambda whole: whole[:-12] + b"\xff" * 4 + whole[-8:], "does not lie where its end says"),
        (lambda whole: whole[:-18] + b"\1\0" + whole[-16:], "one of several volumes"),
        (lambda whole: whole[:-12] + struct.pack("<I", 60) + whole[-8:], "directory|should have"),
        (lambda whole: whole.replace(b"PK\1\2", b"PK\1\3"), "directory is damaged"),
    ],
)
def test_a_zip_without_a_directory_is_refused(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / "a.zip", change(zip_bytes(THREE)))
    with pytest.raises(SourceError, match=message):
        reasons(path)


def test_zip_links_folders_names_and_what_stands_before_it(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("a/link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a/", b"")
        archive.writestr("a/ü.jpg", JPEG)  # in UTF-8, and says so
        dos = zipfile.ZipInfo("b\\1.jpg")
        dos.create_system, dos.filename = 0, "b\\1.jpg"
        archive.writestr(dos, JPEG)
        archive.comment = b"PK\5\6 is in the comment"
    content = stream.getvalue()
    # A name of cp437: the flag of UTF-8 removed, and the bytes replaced by others as long.
    raw = "ü".encode()
    content = content.replace(b"a/" + raw, b"a/\x81\xe1")
    content = bytearray(content)
    for at in range(len(content) - 4):
        if content[at : at + 4] == b"PK\1\2" and content[at + 46 : at + 48] == b"a/":
            content[at + 9] &= ~8
    source = open_source(write(tmp_path / "a.zip", b"#!/bin/sh\n" + bytes(content)))
    assert read_all(source) == {"a/üß.jpg": "", "b/1.jpg": ""}
    assert source.survey.skipped == {"link inside an archive": 1}


def test_zip64_and_more_members_than_16_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("0.jpg", "w", force_zip64=True) as stream:
            stream.write(JPEG)
        for number in range(1, 65_600):
            archive.writestr(f"{number}.jpg", b"x")
    source = open_source(path)
    assert source.survey.count == 65_600
    last = list(source.items())[-1]
    assert source.reader.read(last.place)[0] == b"x"  # type: ignore[index]


def test_memory_stays_constant_however_many_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tlpipe.stages.source.archives as archives_module

    monkeypatch.setattr(archives_module, "MOST_KEPT", 1000)
    block = header(b"a/x.jpg", b"00000000000")
    paths = []
    for count in (9_000, 27_000):
        path = tmp_path / f"{count}.tar"
        path.write_bytes(block * count + bytes(1024))
        paths.append((path, count))
    peaks = []
    for path, count in paths:
        tracemalloc.start()
        assert sum(len(found) for found in open_source(path).scan(stats=True)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
