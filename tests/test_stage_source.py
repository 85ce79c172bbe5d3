from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import write_classes
from tlpipe.errors import SourceError
from tlpipe.stages.decode import formats
from tlpipe.stages.source import IMAGE_EXTENSIONS, open_source
from tlpipe.types import Item, Split


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def listed(path: Path) -> list[tuple[str, str | None, Split]]:
    return [(item.key, item.label, item.split) for item in open_source(path).items()]


def test_extensions_are_those_of_the_formats_that_are_read() -> None:
    Image.init()
    readable = set(formats())
    known = {ext for ext, name in Image.registered_extensions().items() if name in readable}
    assert known - IMAGE_EXTENSIONS == set()
    # Pillow opens .mpo as JPEG; it registers formats by what it was built with.
    assert IMAGE_EXTENSIONS - known <= {".mpo", ".avif", ".avifs", ".j2c", ".j2k"}


def test_a_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.jpg", "cat/a.JPG", "cat/deep/er/c.png")
    source = open_source(tmp_path)
    assert listed(tmp_path) == [
        ("cat/a.JPG", "cat", Split.NONE),
        ("cat/deep/er/c.png", "cat", Split.NONE),
        ("dog/b.jpg", "dog", Split.NONE),
    ]
    assert source.survey.layout == "a folder per class"
    assert source.survey.classes == ["cat", "dog"]
    assert source.survey.count == 3


@pytest.mark.parametrize("validation", ["validation", "val", "Valid"])
def test_split_folders(tmp_path: Path, validation: str) -> None:
    touch(tmp_path, "train/x/1.png", f"{validation}/x/2.png", "test/y/3.png")
    splits = {key.split("/")[-1]: (label, split) for key, label, split in listed(tmp_path)}
    assert splits == {
        "1.png": ("x", Split.TRAIN),
        "2.png": ("x", Split.VALIDATION),
        "3.png": ("y", Split.TEST),
    }
    survey = open_source(tmp_path).survey
    assert survey.by_split() == {Split.TRAIN: 1, Split.VALIDATION: 1, Split.TEST: 1}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.png", "bus/2.png")
    assert [label for _, label, _ in listed(tmp_path)] == ["bus", "train"]


def test_splits_beside_other_folders_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "train/x/1.png", "test/x/2.png", "more/3.png")
    with pytest.raises(SourceError, match=r"holds the splits \['test', 'train'\] and beside them"):
        list(open_source(tmp_path).scan(stats=True))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.png")
    assert listed(tmp_path) == [("a.png", None, Split.NONE), ("b.png", None, Split.NONE)]
    assert open_source(tmp_path).survey.layout == "a flat folder without labels"


def test_what_is_no_image_is_skipped_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "c/1.png", "c/notes.txt", "c/README", "c/.hidden.png", ".git/x.png")
    touch(tmp_path, "loose.png")
    (tmp_path / "empty").mkdir()
    survey = open_source(tmp_path).survey
    assert dict(survey.skipped) == {
        "not an image (.txt)": 1,
        "not an image (no extension)": 1,
        "hidden": 2,
    }
    assert survey.notices == [
        "Images outside any class folder: 1. They have no label.",
        "Folders without any image: 'empty'.",
    ]


def test_links_to_files_inside_are_items_and_no_folder_is_listed_twice(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "c/1.png", ".store/kept/2.png")
    (root / "c" / "file.png").symlink_to(root / "c" / "1.png")
    (root / "c" / "up").symlink_to(root, target_is_directory=True)
    (root / "again").symlink_to(root / "c", target_is_directory=True)
    (root / "d").symlink_to(root / ".store" / "kept", target_is_directory=True)
    (root / "c" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "c" / "self.png").symlink_to(root / "c" / "self.png")
    keys = [key for key, _, _ in listed(root)]
    assert keys == ["c/1.png", "c/file.png", "c/gone.png", "c/self.png", "d/2.png"]
    skipped = {"link to a folder that is listed anyway": 2, "hidden": 1}
    assert dict(open_source(root).survey.skipped) == skipped


def test_odd_names_are_kept(tmp_path: Path) -> None:
    names = ["a b.png", "ü.png", "日本.png", "new\nline.png", '"q",;.png', "😀.png"]
    touch(tmp_path, *names)
    assert [key for key, _, _ in listed(tmp_path)] == sorted(names)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_utf8_is_listed_in_escapes(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    (item,) = open_source(tmp_path).items()
    assert item.key == "caf\\xe9.png"
    assert Path(item.place).exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.text("ab.-Z é", min_size=1, max_size=4), min_size=1, max_size=8, unique=True))
def test_the_order_is_that_of_the_path_components(
    tmp_path_factory: pytest.TempPathFactory, folders: list[str]
) -> None:
    root = tmp_path_factory.mktemp("order")
    kept = [name for name in folders if not name.startswith(".") and name.strip(" .")]
    for name in kept:
        touch(root, f"{name}/x.png", f"{name}.png")
    if not kept:
        return
    keys = [item.key for item in open_source(root).items()]
    assert keys == sorted(keys, key=lambda key: key.split("/"))
    assert len(keys) == 2 * len(kept)


def test_a_source_can_be_listed_again_and_never_by_itself_differs(tmp_path: Path) -> None:
    write_classes(tmp_path, 3)
    source = open_source(tmp_path)
    assert list(source.items()) == list(source.items())


def test_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg")
    (item,) = open_source(tmp_path / "x.jpg").items()
    assert item == Item("x.jpg", str(tmp_path / "x.jpg"))


@pytest.mark.parametrize("name", ["nothing", "nothing.csv"])
def test_a_missing_source(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / name)


def test_a_source_without_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt")
    source = open_source(tmp_path)
    with pytest.raises(SourceError):
        list(source.scan(stats=True))
    with pytest.raises(SourceError) as caught:
        _ = source.survey
    assert str(caught.value) == (
        f"The source {str(tmp_path)!r} holds no image (skipped: 1 not an image (.txt))."
        " Images are recognised by their extension: .jpg, .png, .webp, .tif and so on."
    )


def manifest(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_manifest_stays_in_its_order(tmp_path: Path) -> None:
    text = "\ufeffPath,Label,Split,note\r\nz.jpg,dog,train,x\r\n\r\n/abs/a.png,cat,VAL,\r\nq,,,\r\n"
    path = manifest(tmp_path, text)
    source = open_source(path, allow_outside=["/"])
    assert not source.walked
    assert list(source.items()) == [
        Item("z.jpg", str(tmp_path / "z.jpg"), "dog", Split.TRAIN),
        Item("/abs/a.png", "/abs/a.png", "cat", Split.VALIDATION),
        Item("q", str(tmp_path / "q"), None, Split.NONE),
    ]
    assert source.survey.notices == ["Columns of the manifest that are not used: ['note']."]
    assert dict(source.survey.skipped) == {"blank line": 1}


def test_columns_that_are_asked_for_are_used(tmp_path: Path) -> None:
    source = open_source(manifest(tmp_path, "path,note,id\na.jpg,x,1\n"))
    assert "['note', 'id']" in source.survey.notices[0]
    source.check_columns(["id"])
    want = ["Columns of the manifest that are not used: ['note']."]
    assert source.survey.notices == want
    assert len(list(source.scan(stats=True))) == 1  # as an update compares it
    assert source.survey.notices == want


def test_a_feature_file_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(SourceError, match="is a feature file"):
        open_source(path)


def test_a_manifest_of_tabs_and_quotes(tmp_path: Path) -> None:
    path = manifest(tmp_path, 'label\tpath\n"a ""b"""\t"x,y.png"\n', "m.TSV")
    (item,) = open_source(path).items()
    assert (item.key, item.label) == ("x,y.png", 'a "b"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", r"no column 'path', but \['file', 'label'\]"),
        ("", r"no column 'path', but \[\]"),
        ("path,path\na,b\n", "names the columns .* more than once"),
        ("label,path\nx\n", r"line 2 has only 1 values: \['x'\]"),
        ("path,label\n,x\n", "line 2 has an empty path"),
        ("path,split\na,train\nb,holdout\n", "line 3 has the split 'holdout'"),
        ("path,label\na\0,b\n", "NUL"),
        (b"path\ncaf\xe9.jpg\n", "cannot be read"),
        ('path\n"unclosed\n', "cannot be read"),
        ("path\n", "holds no image"),
    ],
)
def test_a_wrong_manifest_is_refused_before_any_work(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        _ = open_source(manifest(tmp_path, text)).survey


@pytest.mark.parametrize("text", ["file\na\n", "", "path,path\na,b\n", b"caf\xe9\n"])
def test_a_wrong_header_is_refused_at_once(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(SourceError):
        open_source(manifest(tmp_path, text))


def test_blocks_hold_at_most_4096_items_of_many_folders(tmp_path: Path) -> None:
    names = [f"{c}/{i:04d}.png" for c in "abc" for i in range(1500)]
    touch(tmp_path, *names)
    (tmp_path / "b" / "0007.png").write_bytes(b"12345")
    (tmp_path / "b" / "0008.png").unlink()
    (tmp_path / "b" / "0008.png").symlink_to("nowhere")
    source = open_source(tmp_path)
    assert source.walked
    blocks = list(source.scan(stats=True))
    assert [len(block) for block in blocks] == [4096, 404]
    assert [key for block in blocks for key in block.keys] == names
    assert [label for block in blocks for label in block.labels] == [name[0] for name in names]
    found = tmp_path / "b" / "0007.png"
    assert blocks[0].stats[1507] == (5, found.stat().st_mtime_ns)
    assert blocks[0].stats[1508] == (-1, -1)
    assert blocks[0].item(1507) == Item("b/0007.png", str(found), "b")
    assert not next(source.scan(stats=False)).stats
    assert source.survey.count == 4500


def test_a_full_scan_makes_the_survey_and_needs_no_other_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    source = open_source(tmp_path)
    list(source.scan(stats=True))
    touch(tmp_path, "b/3.png")
    assert source.survey.count == 2
    next(source.scan(stats=True))  # not to its end
    assert source.survey.count == 2
    list(source.items())
    assert source.survey.count == 3
    monkeypatch.setattr(os, "scandir", None)
    assert source.survey.classes == ["a", "b"]


def test_empty_folders_are_neither_splits_nor_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/x/1.png", "test/x/1.png", "notes/deep/a.txt", "valid/none/b.txt")
    assert listed(tmp_path) == [
        ("test/x/1.png", "x", Split.TEST),
        ("train/x/1.png", "x", Split.TRAIN),
    ]


def test_a_split_whose_images_come_late_is_found(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{i:03d}.txt" for i in range(300)), "train/deep/er/1.png")
    touch(tmp_path, *(f"test/x/{i:03d}.png" for i in range(300)))
    assert open_source(tmp_path).survey.by_split() == {Split.TRAIN: 1, Split.TEST: 300}
