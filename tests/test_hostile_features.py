"""Feature files from strangers: only tlpipe's errors come out, nothing outside is read, no hang."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from conftest import write_image
from feature_files import write_features
from tlpipe.card import Card

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")

SECRET = "the content of a file outside"
MOST_MB = 400
MOST_S = 20

Attack = Callable[[h5py.File, Path], object]


def remade(file: h5py.File, name: str, **options: Any) -> h5py.Dataset:
    """A dataset in place of another, with the same values where that can be."""
    old = file[name]
    shape, dtype = options.pop("shape", old.shape), options.pop("dtype", old.dtype)
    del file[name]
    return file.create_dataset(name, shape, dtype, **options)


def linked(link: object) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        del file["keys"]
        file["keys"] = link

    return attack


def external_storage(name: str) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        size = file[name].size * file[name].dtype.itemsize
        remade(file, name, external=[(str(folder / "secret.txt"), 0, size)])

    return attack


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.frombuffer((SECRET * 400).encode()[:3200], "<f4").reshape(100, 8)
    layout = h5py.VirtualLayout(file["embeddings"].shape, "<f4")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (100, 8))
    del file["embeddings"]
    file.create_virtual_dataset("embeddings", layout)


def bomb(file: h5py.File, folder: Path) -> None:
    remade(
        file, "embeddings", shape=(30_000_000, 8), chunks=(8192, 8), compression="gzip",
        fillvalue=0,
    )  # fmt: skip
    file["embeddings"][:8192] = 0


def unknown_filter(file: h5py.File, folder: Path) -> None:
    del file["embeddings"]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((100, 8))
    plist.set_filter(31999, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((100, 8))
    h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F32LE, space, plist)


def sparse(name: str, count: int, row: tuple[int, ...], **options: Any) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        options.setdefault("chunks", (256, *row))
        remade(file, name, shape=(count, *row), maxshape=(None, *row), **options)

    return attack


def all_sparse(file: h5py.File, folder: Path) -> None:
    for name in list(file):
        if isinstance(file[name], h5py.Dataset) and name != "classes":
            row = file[name].shape[1:]
            remade(file, name, shape=(10**15, *row), maxshape=(None, *row), chunks=(256, *row))


def attribute(name: str, value: Any) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        file.attrs[name] = value

    return attack


def loop(file: h5py.File, folder: Path) -> None:
    del file["rejects"]
    file["rejects"] = file["/"]
    file["x"] = file["/"]


def as_group(name: str) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        del file[name]
        file.create_group(name)

    return attack


def without(name: str) -> Attack:
    return lambda file, folder: file.__delitem__(name)


def as_dtype(name: str, dtype: Any) -> Attack:
    return lambda file, folder: remade(file, name, dtype=dtype)


def as_rank(name: str) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        remade(file, name, shape=(*file[name].shape, 1))

    return attack


def as_null(file: h5py.File, folder: Path) -> None:
    del file["labels"]
    file["labels"] = h5py.Empty("<i4")


def text(name: str, value: bytes) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        file[name][0] = value

    return attack


def card_table(**changes: Any) -> Attack:
    def attack(file: h5py.File, folder: Path) -> None:
        table = json.loads(file.attrs["backbone"])
        for name, value in changes.items():
            table[name] = value
        file.attrs["backbone"] = json.dumps(table)

    return attack


def resealed(attack: Attack) -> Attack:
    """The attack, and then checksums and seal as they must be: by someone who knows the format."""

    def work(file: h5py.File, folder: Path) -> None:
        attack(file, folder)
        seal_again(file)

    return work


def seal_again(file: h5py.File) -> None:
    from tlpipe.stages.store.layout import COLUMNS, HEADER_FIELDS, checksums, seal

    tables, shapes = {}, {}
    for name in COLUMNS:
        values = file[name][:]
        texts = values.tolist() if values.dtype == object else values
        tables[name] = np.array(checksums(texts), "<u4")
        shapes[name] = file[name].shape
        del file[f"checksums/{name}"]
        file[f"checksums/{name}"] = tables[name]
    attributes = {name: str(file.attrs[name]) for name in HEADER_FIELDS}
    file.attrs["seal"] = seal(attributes, shapes, tables)


DEEP = 100_000
NAMES = ["keys", "content_sha256", "stat", "labels", "splits", "groups", "embeddings", "classes"]
NAMES += ["rejects/key", "rejects/stat", "checksums/keys", "checksums/embeddings"]

ATTACKS: dict[str, Attack] = {
    "external link": lambda file, folder: linked(
        h5py.ExternalLink(str(folder / "good.h5"), "/keys")
    )(file, folder),
    "soft link": linked(h5py.SoftLink("/rejects/key")),
    "soft link to itself": linked(h5py.SoftLink("/keys")),
    "link of a group": lambda file, folder: (
        file.move("rejects", "r"),
        file.__setitem__("rejects", h5py.SoftLink("/r")),
    ),
    "external storage of vectors": external_storage("embeddings"),
    "external storage of digests": external_storage("content_sha256"),
    "external storage of checksums": external_storage("checksums/labels"),
    "virtual dataset": virtual,
    "gzip bomb": bomb,
    "unknown filter": unknown_filter,
    "many rows": sparse("embeddings", 10**15, (8,)),
    "more rows than integers": sparse("embeddings", 2**62, (8,)),
    "many numbers": sparse("embeddings", 100, (2**31,), chunks=(1, 1024)),
    "many keys": sparse("keys", 10**12, ()),
    "many rejects": sparse("rejects/key", 10**12, ()),
    "many classes": sparse("classes", 10**12, ()),
    "many checksums": sparse("checksums/keys", 10**12, ()),
    "many of all": all_sparse,
    "huge chunks": sparse("embeddings", 100, (8,), chunks=(2**26, 8)),
    "no rows": sparse("embeddings", 0, (8,)),
    "no numbers": lambda file, folder: remade(
        file, "embeddings", shape=(100, 0), maxshape=(None, None), chunks=(1, 1)
    ),
    "attribute of numbers": attribute("created_at", np.zeros(8000)),
    "attribute of many texts": attribute("created_at", ["x"] * 3000),
    "attribute of 50 MB": attribute("source", "x" * 50_000_000),
    "attribute that is no UTF-8": attribute("source", np.bytes_(b"\xff\xfe")),
    "attribute with NUL": attribute("source", "a"),
    "empty attribute": attribute("created_at", h5py.Empty("S10")),
    "version of text": attribute("format_version", "2"),
    "version beyond": attribute("format_version", 2**62),
    "versions": attribute("format_version", np.arange(7000)),
    "version below": attribute("format_version", -1),
    "deep JSON": attribute("backbone", "[" * DEEP + "]" * DEEP),
    "deep JSON that is read": attribute("backbone", '{"a":' * 900 + "1" + "}" * 900),
    "JSON of 20 MB": attribute("backbone", json.dumps({"name": ["x"] * 4_000_000})),
    "JSON of no table": attribute("backbone", "[1, 2]"),
    "number beyond range": attribute("backbone", '{"schema": ' + "9" * 5000 + "}"),
    "card beyond range": resealed(card_table(input={"height": 10**400})),
    "card of NaN": resealed(attribute("backbone", '{"schema": NaN}')),
    "deep card": resealed(attribute("backbone", '{"schema": ' + "[" * 900 + "]" * 900 + "}")),
    "deep table": resealed(attribute("backbone", '{"a":' * 900 + "1" + "}" * 900)),
    "time beyond range": resealed(attribute("created_at", "9999-12-31T23:59:59+00:00")),
    "time without end": resealed(attribute("created_at", "9" * 10_000)),
    "groups in a loop": loop,
    "null dataset": as_null,
    "key of no UTF-8": resealed(text("keys", b"\xff\xfe\xfd")),
    "class of no UTF-8": resealed(text("classes", b"\xff\xfe\xfd")),
    "reject of no UTF-8": resealed(text("rejects/detail", b"\xff\xfe\xfd")),
    "key that leads out": resealed(text("keys", b"../../../etc/passwd")),
    "key of 30 MB": resealed(text("keys", b"k" * 30_000_000)),
    "label beyond": resealed(lambda file, folder: file["labels"].__setitem__(0, 2**31 - 1)),
    "label below": resealed(lambda file, folder: file["labels"].__setitem__(0, -(2**31))),
    "split beyond": resealed(lambda file, folder: file["splits"].__setitem__(0, 100)),
    "time of change beyond": resealed(
        lambda file, folder: file["stat"].__setitem__(0, (-(2**63), 2**63 - 1))
    ),
    "unknown reason": resealed(text("rejects/reason", b"because")),
    "vectors of NaN": resealed(lambda file, folder: file["embeddings"].__setitem__(0, np.nan)),
    **{f"group for {name}": as_group(name) for name in NAMES},
    **{f"dtype of {name}": as_dtype(name, "<f8") for name in NAMES},
    **{f"compound for {name}": as_dtype(name, [("a", "<f8"), ("b", "S3")]) for name in NAMES[:7]},
    **{f"reference for {name}": as_dtype(name, h5py.ref_dtype) for name in NAMES},
    **{f"fixed text for {name}": as_dtype(name, "S1000") for name in NAMES},
    **{f"lists for {name}": as_dtype(name, h5py.vlen_dtype("<i4")) for name in NAMES[:7]},
    **{f"rank of {name}": as_rank(name) for name in NAMES},
    **{f"none of {name}": without(name) for name in NAMES},
}


def user_block(path: Path, good: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file, h5py.File(good) as old:
        for name in old:
            old.copy(name, file)
        for name, value in old.attrs.items():
            file.attrs[name] = value
    with path.open("r+b") as stream:
        stream.write(b"#!/bin/sh\n")


def endless_heap(path: Path, good: Path) -> None:
    """An object of size 0 in a heap of texts, over which HDF5 would walk for ever."""
    raw = bytearray(good.read_bytes())
    for found in re.finditer(b"GCOL\x01", bytes(raw)):
        raw[found.start() + 16 : found.start() + 200] = bytes(184)
    path.write_bytes(raw)


def heap_that_turns_back(path: Path, good: Path) -> None:
    raw = bytearray(good.read_bytes())
    for found in re.finditer(b"GCOL\x01", bytes(raw)):
        raw[found.start() + 24 : found.start() + 32] = struct.pack("<q", -32)
    path.write_bytes(raw)


def long_texts(path: Path, good: Path) -> None:
    """Keys that claim 4 GB each."""
    raw = bytearray(good.read_bytes())
    with h5py.File(good) as file:
        start = file["keys"].id.get_chunk_info(0).byte_offset
    for row in range(100):
        raw[start + 16 * row : start + 16 * row + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)


def claims_more(times: int) -> Callable[[Path, Path], None]:
    """A superblock that states a greater length; its checksum is mended by no one."""

    def attack(path: Path, good: Path) -> None:
        raw = bytearray(good.read_bytes())
        raw[28:36] = struct.pack("<Q", times * len(raw))
        path.write_bytes(raw)

    return attack


def other_program(path: Path, good: Path) -> None:
    with h5py.File(path, "w") as file:
        file["model_weights/dense/kernel"] = np.zeros((3, 3))
        file.attrs["format"] = 7


FILES: dict[str, Callable[[Path, Path], object]] = {
    "user block": user_block,
    "endless heap": endless_heap,
    "heap that turns back": heap_that_turns_back,
    "long texts": long_texts,
    "claims more": claims_more(3),
    "claims far more": claims_more(10**12),
    "other program": other_program,
    "empty": lambda path, good: path.write_bytes(b""),
    "signature alone": lambda path, good: path.write_bytes(b"\x89HDF\r\n\x1a\n"),
    "text": lambda path, good: path.write_text(SECRET),
    "folder": lambda path, good: path.mkdir(),
    "pipe": lambda path, good: os.mkfifo(path),
    "device": lambda path, good: path.symlink_to("/dev/zero"),
    "missing": lambda path, good: None,
}


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, tiny_card: Card, tiny_card_path: Path
) -> dict[str, dict[str, list[Any]]]:
    """What every way of opening makes of every attack."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret.txt").write_text(SECRET * 200)
    for number in range(3):
        write_image(folder / "photos" / f"{number}.png", number)
    good = write_features(folder / "good.h5", tiny_card, 100)
    paths = []
    for name, attack in ATTACKS.items():
        path = Path(shutil.copy(good, folder / f"{name.replace('/', ' of ')}.h5"))
        with h5py.File(path, "r+") as file:
            attack(file, folder)
        paths.append(path)
    for name, make in FILES.items():
        path = folder / f"{name}.h5"
        make(path, good)
        paths.append(path)
    found: dict[str, dict[str, list[Any]]] = {}
    while paths:  # a crash or a hang costs one file, not those after it
        command = [sys.executable, str(Path(__file__).with_name("hostile_child.py"))]
        command += [str(folder), str(tiny_card_path), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        names = [path.name for path in paths]
        begun = 0
        for line in done.stdout.splitlines():
            said = json.loads(line)
            if "begun" in said:
                begun = names.index(said["begun"])
                found[said["begun"]] = {"all": [f"CRASH: {done.returncode} {done.stderr}", 0, 0]}
            else:
                found[said["name"]] = said["found"]
        paths = paths[begun + 1 :]
    return found


HARMLESS = {  # what some ways of opening may take for good
    "attribute with NUL", "attribute of 50 MB", "key that leads out",
    "key of 30 MB", "time beyond range", "time without end", "time of change beyond",
}  # fmt: skip


@pytest.mark.parametrize("name", [*ATTACKS, *FILES])
def test_only_errors_of_tlpipe_come_out(
    results: dict[str, dict[str, list[Any]]], name: str
) -> None:
    found = results[f"{name.replace('/', ' of ')}.h5"]
    for way, (said, more_mb, took_s) in found.items():
        assert said.startswith(("fine", "refused")), f"{way}: {said}"
        assert SECRET[:20] not in said
        assert more_mb < MOST_MB, way
        assert took_s < MOST_S, way


@pytest.mark.parametrize("name", [name for name in (*ATTACKS, *FILES) if name not in HARMLESS])
def test_an_attack_is_refused_and_named(
    results: dict[str, dict[str, list[Any]]], name: str
) -> None:
    found = results[f"{name.replace('/', ' of ')}.h5"]
    refused = [way for way, (said, _, _) in found.items() if said.startswith("refused")]
    verified = found["verify"][0]
    assert verified.startswith("refused") or "found=0" not in verified
    assert refused
    if name not in ("missing",):
        assert found["embed"][0].startswith("refused"), found["embed"]
