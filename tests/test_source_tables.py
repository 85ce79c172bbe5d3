"""Manifests of JSON Lines and Parquet, and Parquet tables with image bytes in a column."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tlpipe
from tlpipe.errors import OptionError, SourceError
from tlpipe.parquet_pages import Page
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.source.parquet import reader as reading
from tlpipe.stages.source.parquet.stretch import rows_at_once
from tlpipe.types import Item, Reason, Reject, Split

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = ["blue", "green", "red"]


def png(number: int, size: int = 8) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def class_labels(names: list[str], column: str = "label") -> dict[bytes, bytes]:
    features = {"image": {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def table(path: Path, rows: list[tuple[bytes | None, str | None, int]], **more: Any) -> Path:
    """A table as ``datasets`` writes it."""
    images = pa.array(
        [None if p is b is None else {"bytes": b, "path": p} for b, p, _ in rows], IMAGE
    )
    columns = {"image": images, "label": pa.array([n for _, _, n in rows], pa.int64()), **more}
    found = pa.table(columns).replace_schema_metadata(class_labels(CLASSES))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(found, path, row_group_size=4)
    return path


def contents(source: Source) -> list[tuple[str | None, Split, str]]:
    found = []
    for item in source.items():
        read = source.reader.read(item.place)
        what = read.reason if isinstance(read, Reject) else hashlib.sha256(read[0]).hexdigest()
        found.append((item.label, item.split, what))
    return found


def items(path: Path, *columns: str) -> list[Item]:
    return list(open_source(path).items(columns))


def write(path: Path, *lines: Any) -> Path:
    path.write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )
    return path


def test_the_same_images_of_every_kind(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    for number in range(12):
        path = root / ("test" if number < 4 else "train") / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    source = open_source(root)
    want = contents(source)
    known = list(source.items())
    rows = [
        {"path": item.key, "label": item.label, "split": item.split.name.lower()} for item in known
    ]
    write(root / "m.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), root / "m.parquet")
    (root / "m.csv").write_text(
        "path,label,split\n" + "".join(f"{','.join(r.values())}\n" for r in rows)
    )  # type: ignore[arg-type]
    for split, name in (("test", "test"), ("train", "train-00000-of-00001")):
        some = [item for item in known if item.split.name.lower() == split]
        table(
            tmp_path / "tables" / "data" / f"{name}.parquet",
            [(Path(i.place).read_bytes(), i.key, CLASSES.index(i.label or "")) for i in some],
        )
    for kind in ("folder/m.jsonl", "folder/m.parquet", "folder/m.csv", "tables"):
        assert contents(open_source(tmp_path / kind)) == want, kind
    assert [i.key for i in items(tmp_path / "tables")] == [i.key for i in known]
    (root / "m.parquet").rename(tmp_path / "m.parquet")  # beside images it would be no table either
    assert contents(open_source(root)) == want


def test_labels_of_json_may_be_numbers_and_lists(tmp_path: Path) -> None:
    labels = ["cat", 3, 2.0, 0.5, True, None, ["a", "b"], [1, 2], [], " x "]
    path = write(
        tmp_path / "m.jsonl", *({"path": f"{i}", "label": v} for i, v in enumerate(labels))
    )
    want = ["cat", "3", "2", "0.5", "true", None, "a|b", "1|2", "|", "x"]
    assert [item.label for item in items(path)] == want


@pytest.mark.parametrize(
    ("values", "want"),
    [
        (pa.array(["a", None, " b "]), ["a", None, "b"]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.array([3, None, -1]), ["3", None, "-1"]),
        (pa.array([3.0, None, float("nan")]), ["3", None, None]),
        (pa.array([["a", "b"], None, []]), ["a|b", None, "|"]),
        (pa.array([[1, 2], [3], [3]]), ["1|2", "3", "3"]),
    ],
)
def test_labels_of_parquet(tmp_path: Path, values: Any, want: list[str | None]) -> None:
    pq.write_table(pa.table({"path": ["x", "y", "z"], "label": values}), tmp_path / "m.parquet")
    assert [item.label for item in items(tmp_path / "m.parquet")] == want


def test_further_columns_are_text(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a", "n": 1, "note": "x,y", "deep": {"k": [1]}, "Label": "c"},
        {"file_name": "b", "n": None, "note": "é", "deep": None, "Label": "d", "late": 1.5},
    ]
    path = write(tmp_path / "m.ndjson", *rows)
    source = open_source(path)
    assert source.columns == ("n", "note", "deep", "late")
    more = [item.more for item in source.items(["late", "n", "deep"])]
    assert more == [("", "1", '{"k":[1]}'), ("1.5", "", "")]
    assert source.survey.notices == ["Columns of the manifest that are not used: ['note']."]
    csv = tmp_path / "m.csv"
    csv.write_text("x,path,y,url\n1,a,2,u\n")
    assert open_source(csv).columns == ("x", "y", "url")
    assert [item.more for item in items(csv, "url", "x")] == [("u", "1")]
    with pytest.raises(OptionError):
        open_source(csv).check_columns(["z"])
    columns = {
        "url": ["a", "b"],
        "n": pa.array([1, None]),
        "f": [0.5, 1.0],
        "when": pa.array([0, 1], pa.timestamp("s")),
        "raw": [b"1", b"2"],
    }
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    assert open_source(tmp_path / "m.parquet").columns == ("n", "f", "when")
    found = [item.more for item in items(tmp_path / "m.parquet", "when", "n", "f")]
    assert found == [
        ("1970-01-01 00:00:00.000", "1", "0.5"),
        ("1970-01-01 00:00:01.000", "", "1.0"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"path": "a"}', "{"], "line 2 cannot be read"),
        (['{"path": "a"}', "", "[1]"], "line 3 is no JSON object"),
        (['{"path": "a"}', '{"path": 5}'], "line 2 has the path 5"),
        (['{"path": "a"}', '{"label": "x"}'], "line 2 has an empty path"),
        (['{"path": "a", "path": "b"}'], "line 1 cannot be read: the name 'path' stands twice"),
        (['{"path": "a", "label": {}}'], "line 1: a label must be text or a number"),
        (['{"path": "a", "label": ["x", ["y"]]}'], "line 1: the labels of a list"),
        (['{"path": "a", "label": ["x|y"]}'], "line 1: the label 'x|y' of a list holds"),
        (['{"path": "a", "split": "holdout"}'], "line 1 has the split 'holdout'"),
        (['{"path": "a\\u0000"}'], "line 1 holds a NUL"),
        (['{"path": "a\\ud800"}'], "line 1 holds half a character"),
        (['{"path": "a", "label": NaN}'], "line 1 cannot be read: NaN"),
        (["[" * 100_000], "line 1 cannot be read"),
        (['{"path": ' + "9" * 10_000 + "}"], "line 1 cannot be read"),
        (['{"x": 1}'], r"no column 'path', but \['x'\]"),
        (["x" * (1 << 20)], "line 1: the row has more than"),
        ([], "no column 'path'"),
    ],
)
def test_malformed_json_lines_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write(tmp_path / "m.jsonl", *lines)
    with pytest.raises(SourceError, match=message):
        _ = open_source(path).survey


def test_text_that_is_no_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    for name, good in (("m.jsonl", b'{"path": "a"}\n'), ("m.csv", b"path\n")):
        (tmp_path / name).write_bytes(good * 70_000 + b"caf\xe9.jpg\n" + good)
        with pytest.raises(SourceError, match="line 70001 cannot be read: 'utf-8'"):
            _ = open_source(tmp_path / name).survey


def test_names_that_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,x,x,,\na,1,2,,\n")
    with pytest.raises(SourceError, match=r"columns \['x'\] more than once"):
        open_source(tmp_path / "m.csv")


def test_links_of_a_folder_with_many_rows_are_all_seen(tmp_path: Path) -> None:
    (tmp_path / "root" / "c").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    path = tmp_path / "root" / "m.csv"
    path.write_text("path\n" + "".join(f"c/{i}.png\n" for i in range(300)) + "c/link.png\n")
    assert open_source(path).survey.count == 301
    (tmp_path / "root" / "c" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(SourceError, match=r"line 302, names 'c/link.png', which leads to"):
        _ = open_source(path).survey
    path.write_text("path\n" + "".join(f"c/{i}.png\n" for i in range(300)) + "c/..\nc/../..\n")
    with pytest.raises(SourceError, match=r"line 303, names 'c/../..', which leads to"):
        _ = open_source(path).survey


def test_keys_are_paths_only_where_these_tell_all_rows_apart(tmp_path: Path) -> None:
    rows = [(png(i), f"{i}.png", 0) for i in range(6)]
    assert [i.key for i in items(table(tmp_path / "a.parquet", rows))] == [p for _, p, _ in rows]
    numbered = [f"b.parquet/{i}" for i in range(6)]
    for other in ("0.png", "", None):
        path = table(tmp_path / "b.parquet", [*rows[:5], (png(5), other, 0)])
        assert [i.key for i in items(path)] == numbered
    plain = {"img": [png(0), png(1)], "label": ["x", "y"]}
    pq.write_table(pa.table(plain), tmp_path / "c.parquet")
    assert [(i.key, i.label) for i in items(tmp_path / "c.parquet")] == [
        ("c.parquet/0", "x"),
        ("c.parquet/1", "y"),
    ]


def test_splits_are_those_of_names_folders_and_columns(tmp_path: Path) -> None:
    rows = [(png(0), None, 0)]
    for name in ("train-00000-of-00001", "validation", "tested", "test/0000", "data/val_1"):
        table(tmp_path / f"{name}.parquet", rows)
    table(tmp_path / "z.parquet", rows, split=["test"])
    assert {i.key: i.split for i in items(tmp_path)} == {
        "data/val_1.parquet/0": Split.VALIDATION,
        "test/0000.parquet/0": Split.TEST,
        "tested.parquet/0": Split.NONE,
        "train-00000-of-00001.parquet/0": Split.TRAIN,
        "validation.parquet/0": Split.VALIDATION,
        "z.parquet/0": Split.TEST,
    }


def test_classes_are_named_by_the_metadata(tmp_path: Path) -> None:
    found = table(tmp_path / "a.parquet", [(png(0), None, n) for n in (2, 0, -1)])
    assert [i.label for i in items(found)] == ["red", "blue", None]
    table(found, [(png(0), None, 3)])
    with pytest.raises(SourceError, match="row group 0, row 0: the label 3 is none of the 3"):
        items(found)
    other = pa.table({"image": [png(0)], "breed": [1]})
    pq.write_table(other.replace_schema_metadata(class_labels(["x", "y"], "breed")), found)
    assert [i.label for i in items(found)] == ["y"]
    pq.write_table(other.replace_schema_metadata({b"huggingface": b"{"}), found)
    with pytest.raises(SourceError, match="metadata 'huggingface' that make no sense"):
        open_source(found)


def test_rows_without_bytes_and_rows_of_paths(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes(png(1))
    (tmp_path / "root" / "in.png").write_bytes(png(2))
    rows = [(None, None, 0), (None, "in.png", 0), (None, "../secret.png", 0), (b"", "e", 0)]
    path = table(tmp_path / "root" / "t.parquet", [*rows, (None, "nothing.png", 0)])
    source = open_source(path)
    read = [source.reader.read(item.place) for item in source.items()]
    assert isinstance(read[0], Reject)
    assert read[0].reason is Reason.MISSING
    assert read[1][0] == png(2)  # type: ignore[index]
    assert isinstance(read[2], Reject)
    assert "leads outside" in read[2].detail
    assert read[3][0] == b""  # type: ignore[index]
    assert isinstance(read[4], Reject)
    assert read[4].reason is Reason.MISSING
    allowed = open_source(path, allow_outside=[tmp_path])
    place = list(allowed.items())[2].place
    assert allowed.reader.read(place)[0] == png(1)  # type: ignore[index]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that the reader unpacked."""
    rows: list[int] = []
    real = reading.TableReader._next

    def counting(self: Any, cursor: Any) -> Any:
        found = real(self, cursor)
        rows.append(0 if found is None else len(found.images))
        return found

    monkeypatch.setattr(reading.TableReader, "_next", counting)
    return rows


def test_threads_that_go_forward_read_nothing_twice(tmp_path: Path, counted: list[int]) -> None:
    images = [png(i) for i in range(600)]
    rows = pa.array([{"bytes": b, "path": f"{i}"} for i, b in enumerate(images)], IMAGE)
    pq.write_table(pa.table({"image": rows}), tmp_path / "t.parquet", row_group_size=70)
    source = open_source(tmp_path / "t.parquet")
    todo = list(source.items())
    groups = iter(range(0, 600, 8))
    got: dict[str, bytes] = {}
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                start = next(groups, None)
            if start is None:
                return
            for item in todo[start : start + 8]:
                got[item.key] = source.reader.read(item.place)[0]  # type: ignore[index, assignment]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[f"{i}"] for i in range(600)] == images
    assert sum(counted) == 600
    assert not source.reader._kept  # type: ignore[attr-defined]


def test_any_order_and_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_KEPT_BYTES", 2000)
    monkeypatch.setattr(reading, "_STRETCH_BYTES", 700)
    rows = [(png(i), f"{i}", 0) for i in range(30)]
    source = open_source(table(tmp_path / "t.parquet", rows))
    todo = list(source.items())
    reader = pickle.loads(pickle.dumps(source.reader))
    for item in (*todo[20:25], *random.Random(3).sample(todo, 30), *todo):
        assert reader.read(item.place)[0] == png(int(item.key))


def test_a_table_that_changed_is_not_read(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", [(png(0), "a", 0)])
    source = open_source(path)
    (item,) = source.items()
    table(path, [(png(1), "b", 0), (png(2), "c", 0)])
    read = source.reader.read(item.place)
    assert isinstance(read, Reject)
    assert "changed since it was listed" in read.detail
    assert len(list(source.items())) == 2
    assert source.reader.read(item.place)[0] == png(1)  # type: ignore[index]


def test_listing_reads_no_image(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    noise = [os.urandom(200_000) for _ in range(20)]
    rows = pa.array([{"bytes": b, "path": f"{i}"} for i, b in enumerate(noise)], IMAGE)
    pq.write_table(pa.table({"image": rows, "label": [0] * 20}), path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(noise[7], bytes(200_000)))  # its page cannot be trusted now
    assert open_source(path).survey.count == 20
    cut = whole.replace(noise[3][:100], b"\xff" * 100)
    path.write_bytes(cut)
    assert open_source(path).survey.count == 20


def test_damaged_pages_cost_their_rows_and_no_more(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", [(png(i), f"{i}", 0) for i in range(8)])
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.dictionary_page_offset : chunk.dictionary_page_offset + 60] = b"\xff" * 60
    path.write_bytes(raw)
    source = open_source(path)
    read = [source.reader.read(item.place) for item in source.items()]
    assert [r[0] for r in read[:4]] == [png(i) for i in range(4)]  # type: ignore[index]
    assert {r.reason for r in read[4:]} == {Reason.UNREADABLE}  # type: ignore[union-attr]


@pytest.mark.parametrize("cut", [0, 4, 100, -1, -9, -200])
def test_a_truncated_table_is_an_error(tmp_path: Path, cut: int) -> None:
    path = table(tmp_path / "t.parquet", [(png(i), f"{i}", 0) for i in range(8)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(path)


def test_types_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pictures = pa.array([{"bytes": b"", "path": ""}], IMAGE)
    for columns, message in (
        ({"path": [1]}, "has 'path' as 'int64'; it must be text"),
        ({"path": ["x"], "label": [b"x"]}, "has 'label' as 'binary'"),
        ({"path": ["x"], "split": [1]}, "has 'split' as 'int64'"),
        ({"x": [1]}, r"no column 'path', but \['x'\]"),
        ({"a": pictures, "b": pictures}, "several columns of images"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(SourceError, match=message):
            open_source(path)


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000), pa.array(["x" * (1 << 22)]))
    pq.write_table(pa.table({"path": text}), path, compression="zstd", store_schema=False)
    with pytest.raises(SourceError, match="text of 4,194,304 bytes"):
        _ = open_source(path).survey
    nothing = pa.table({"image": pa.nulls(3_000_000, IMAGE)})
    pq.write_table(nothing, path, row_group_size=3_000_000)
    with pytest.raises(SourceError, match="claims to have 3,000,000 rows"):
        open_source(path)
    lists = pa.array([[None] * 5_000_000] * 4, pa.list_(pa.int8()))
    pq.write_table(pa.table({"path": list("abcd"), "label": lists}), path)
    with pytest.raises(SourceError, match="20,000,000 values"):
        _ = open_source(path).survey
    writer = pq.ParquetWriter(path, pa.schema([("path", pa.string())]))
    one = pa.table({"path": ["x"]})
    with pytest.MonkeyPatch.context() as patch, writer:
        patch.setattr("tlpipe.stages.source.parquet.file.MOST_GROUPS", 9)
        for _ in range(10):
            writer.write_table(one)
        writer.close()
        with pytest.raises(SourceError, match="has 10 row groups"):
            open_source(path)


def test_a_large_image_of_many_rows_is_unpacked_few_times(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    large = pa.DictionaryArray.from_arrays(pa.array([0] * 500), pa.array([bytes(64 << 20)]))
    pq.write_table(pa.table({"image": large}), path, compression="zstd", store_schema=False)
    source = open_source(path)
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    places = [item.place for item in source.items()][:6]
    for place in places:
        assert len(source.reader.read(place)[0]) == 64 << 20  # type: ignore[index, arg-type]
        assert pa.total_allocated_bytes() - before < 1 << 30


def test_rows_at_once_follow_the_pages() -> None:
    mib = 1 << 20
    assert rows_at_once([], 100, 4 * mib) == 100
    assert rows_at_once([Page(1000, 100 * mib, False)], 1024, 4 * mib) == 40
    assert rows_at_once([Page(1, 200 * mib, False)] * 9, 1024, 900 * mib) == 2
    assert rows_at_once([Page(0, 64 * mib, True), Page(9000, 9000, False)], 1024, 4 * mib) == 4
    spread = [Page(100_000, mib, False), *[Page(1, 255 * mib, False)] * 4]
    assert rows_at_once(spread, 1024) == 2


def test_a_folder_of_images_with_other_tables_stays_one(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png(1))
    pq.write_table(pa.table({"vectors": [[1.0]], "key": ["x"]}), tmp_path / "v.parquet")
    assert [item.key for item in open_source(tmp_path).items()] == ["cat/1.png"]


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_tables_behind_links_that_lead_outside_are_not_read(tmp_path: Path) -> None:
    table(tmp_path / "blobs" / "x.parquet", [(png(0), "a", 0)])
    root = tmp_path / "root"
    root.mkdir()
    (root / "train.parquet").symlink_to(tmp_path / "blobs" / "x.parquet")
    with pytest.raises(SourceError, match="--allow-outside FOLDER"):
        _ = open_source(root).survey
    found = open_source(root, allow_outside=[tmp_path / "blobs"])
    assert found.survey.by_split() == {Split.TRAIN: 1}


def test_a_second_embedding_reads_nothing(
    tmp_path: Path, tiny_card: Any, counted: list[int]
) -> None:
    path = table(tmp_path / "t.parquet", [(png(i), f"{i}", i % 3) for i in range(9)])
    os.utime(path, (1_700_000_000, 1_700_000_000))  # what changed a moment ago is looked at again
    first = tlpipe.embed(path, tmp_path / "f.h5", backbone=tiny_card)
    assert (first.embedded, sum(counted)) == (9, 9)
    second = tlpipe.embed(path, tmp_path / "f.h5", backbone=tiny_card)
    assert second.embedded == 0
    assert sum(counted) == 9
    os.utime(path, ns=(1, 1))
    third = tlpipe.embed(path, tmp_path / "f.h5", backbone=tiny_card)
    assert third.embedded == 0
