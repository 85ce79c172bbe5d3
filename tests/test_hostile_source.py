"""Sources made by someone who means harm: each attack must end soon, and read nothing outside."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlpipe.errors import OptionError, SourceError
from tlpipe.stages.source import Source, open_source
from tlpipe.types import Block

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and special files of POSIX")

OUTSIDE = "link that leads outside the source"
LISTED_ANYWAY = "link to a folder that is listed anyway"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def scanned(source: Source) -> list[Block]:
    return list(source.scan(stats=True))


def keys(source: Source) -> list[str]:
    return [key for block in scanned(source) for key in block.keys]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return touch(tmp_path / "outside", "secret.png", "sub/more.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path / "root", "c/1.png")


def test_links_that_lead_out_are_left_out_and_said(root: Path, outside: Path) -> None:
    (root / "c" / "file.png").symlink_to(outside / "secret.png")
    (root / "c" / "relative.png").symlink_to("../../outside/secret.png")
    (root / "folder").symlink_to(outside)
    (root / "c" / "missing.png").symlink_to(outside / "nowhere.png")
    source = open_source(root)
    assert keys(source) == ["c/1.png"]
    assert dict(source.survey.skipped) == {OUTSIDE: 4}
    (notice,) = source.survey.notices
    assert notice == (
        "The link 'folder' leads outside the source and is left out, like 3 more: name the folder"
        " it leads into with --allow-outside FOLDER to follow it."
    )


def test_a_link_that_leads_out_in_two_steps(root: Path, outside: Path) -> None:
    (root / ".hop").symlink_to(outside)
    (root / "c" / "file.png").symlink_to(root / ".hop" / "secret.png")
    (root / "c" / "hop.png").symlink_to(root / "c" / "file.png")
    source = open_source(root)
    assert keys(source) == ["c/1.png"]
    assert source.survey.skipped[OUTSIDE] == 2


def test_a_name_that_only_starts_like_the_source_is_outside(root: Path, tmp_path: Path) -> None:
    touch(tmp_path / "root-and-more", "secret.png")
    (root / "c" / "x.png").symlink_to(tmp_path / "root-and-more" / "secret.png")
    assert keys(open_source(root)) == ["c/1.png"]


def test_a_source_of_nothing_but_links_out_says_what_to_do(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "x.png").symlink_to(outside / "secret.png")
    with pytest.raises(SourceError, match=r"skipped: 1 link that leads.*--allow-outside FOLDER"):
        scanned(open_source(tmp_path / "root"))


def test_what_is_allowed_is_followed_each_folder_once(root: Path, outside: Path) -> None:
    (root / "a").symlink_to(outside / "sub")
    (root / "b").symlink_to(outside / "sub")  # equals
    (root / "c" / "all").symlink_to(outside)  # contains
    (root / "d.png").symlink_to(outside / "secret.png")
    (outside / "sub" / "back").symlink_to(outside)
    (outside / "sub" / "home").symlink_to(root)
    source = open_source(root, allow_outside=[outside])
    assert keys(source) == ["a/more.png", "c/1.png", "d.png"]
    assert dict(source.survey.skipped) == {LISTED_ANYWAY: 4}
    assert keys(open_source(root, allow_outside=["/"])) == ["a/more.png", "c/1.png", "d.png"]


def test_a_folder_inside_one_that_was_followed_is_not_walked_again(
    root: Path, outside: Path
) -> None:
    (root / "a").symlink_to(outside)
    (root / "b").symlink_to(outside / "sub")
    source = open_source(root, allow_outside=[outside])
    assert keys(source) == ["a/secret.png", "a/sub/more.png", "c/1.png"]
    assert dict(source.survey.skipped) == {LISTED_ANYWAY: 1}


def test_only_what_is_allowed_is_followed(root: Path, outside: Path, tmp_path: Path) -> None:
    touch(tmp_path / "else", "x.png")
    (root / "a").symlink_to(outside)
    (outside / "on").symlink_to(tmp_path / "else")
    source = open_source(root, allow_outside=[outside])
    assert keys(source) == ["a/secret.png", "a/sub/more.png", "c/1.png"]
    assert dict(source.survey.skipped) == {OUTSIDE: 1}
    assert "'a/on'" in source.survey.notices[0]


def test_a_folder_to_be_allowed_must_exist(root: Path) -> None:
    with pytest.raises(OptionError, match="does not exist"):
        open_source(root, allow_outside=[root / "nothing"])


def test_a_root_that_is_a_link_is_what_the_user_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    (root / "c" / "2.png").symlink_to(root / "c" / "1.png")
    assert keys(open_source(tmp_path / "alias")) == ["c/1.png", "c/2.png"]
    (tmp_path / "one.png").symlink_to(root / "c" / "1.png")
    assert keys(open_source(tmp_path / "one.png")) == ["one.png"]


def test_loops_end(root: Path) -> None:
    (root / "c" / "up").symlink_to("..")
    (root / "c" / "here").symlink_to(".")
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    source = open_source(root)
    assert keys(source) == ["c/1.png"]
    assert source.survey.skipped[LISTED_ANYWAY] == 2


@pytest.mark.parametrize("allowed", [False, True])
def test_a_net_of_links_with_a_billion_paths_ends_at_once(tmp_path: Path, allowed: bool) -> None:
    net = tmp_path / "net"
    for level in range(30):
        (net / f"{level:02d}").mkdir(parents=True)
        for name in ("left", "right"):
            (net / f"{level:02d}" / name).symlink_to(f"../{level + 1:02d}")
    touch(net, "30/1.png")
    root = net
    if allowed:
        root = tmp_path / "root"
        root.mkdir()
        (root / "start").symlink_to(net / "00")
    start = time.monotonic()
    found = keys(open_source(root, allow_outside=[net] if allowed else ()))
    assert time.monotonic() - start < 5
    assert found == ["start/" + "left/" * 30 + "1.png"] if allowed else ["30/1.png"]


def test_a_chain_of_links_longer_than_any_system_follows(root: Path) -> None:
    for i in range(3000):
        (root / f".{i}").symlink_to(f".{i + 1}")
    (root / "c" / "x.png").symlink_to("../.0")
    (root / "c" / "y.png").symlink_to("../.0/z.png")
    source = open_source(root)
    assert keys(source) == ["c/1.png", "c/x.png", "c/y.png"]
    assert scanned(source)[0].stats[1:] == [(-1, -1)] * 2


@contextlib.contextmanager
def nested(root: Path, depth: int) -> Iterator[None]:
    """Folders one in another, whatever length their path gets; gone afterwards.

    They are made and removed from the inside out, since what removes temporary folders recurses.
    """
    top, spare = root / "d", root / "spare"
    top.mkdir()
    (top / "x.png").touch()
    for _ in range(depth - 1):
        spare.mkdir()
        top.rename(spare / "d")
        spare.rename(top)
    yield
    while top.exists():
        (top / "x.png").unlink(missing_ok=True)
        if (top / "d").exists():
            (top / "d").rename(spare)
        top.rmdir()
        if spare.exists():
            spare.rename(top)


def test_folders_1500_deep_are_listed(root: Path) -> None:
    assert sys.getrecursionlimit() < 1500
    with nested(root, 1500):
        source = open_source(root)
        assert keys(source) == ["c/1.png", "d/" * 1500 + "x.png"]
        assert source.survey.classes == ["c", "d"]


def test_folders_deeper_than_a_path_can_say_are_refused(root: Path) -> None:
    with (
        nested(root, 3000),
        pytest.raises(SourceError, match=r"cannot be listed: File name too long") as caught,
    ):
        scanned(open_source(root))
    assert len(str(caught.value)) < 2000


def test_special_files_are_listed_and_never_opened(root: Path) -> None:
    os.mkfifo(root / "c" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "c" / "socket.jpg"))
        (root / "c" / "zero.jpg").symlink_to("/dev/zero")
        assert keys(open_source(root)) == ["c/1.png", "c/pipe.jpg", "c/socket.jpg"]


def test_a_name_of_255_bytes(root: Path) -> None:
    name = "x" * 251 + ".png"
    touch(root, name)
    assert keys(open_source(root)) == ["c/1.png", name]


def test_extensions_without_end_are_counted_in_few_words(root: Path) -> None:
    touch(root, *(f"c/x.{i}" for i in range(1000)))
    skipped = open_source(root).survey.skipped
    assert len(skipped) <= 101
    assert skipped.total() == 1000


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list all")
def test_a_folder_that_may_not_be_listed_is_an_error(root: Path) -> None:
    (root / "c").chmod(0)
    try:
        with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
            scanned(open_source(root))
    finally:
        (root / "c").chmod(0o700)


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "m.csv"
    path.write_text("\n".join(["path,label", *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    "written",
    [
        "../outside/secret.png",
        "c/../../outside/secret.png",
        "nothing/../../outside/secret.png",
        "{outside}/secret.png",
        "{outside}/missing.png",
        "c/link/secret.png",
        "c/file.png",
        "c/hop.png",
        "c/link/..",
        "..",
        "/dev/zero",
    ],
)
def test_a_manifest_may_not_name_what_lies_outside(root: Path, outside: Path, written: str) -> None:
    (root / "c" / "link").symlink_to(outside)
    (root / "c" / "file.png").symlink_to(outside / "secret.png")
    (root / "c" / "hop.png").symlink_to("file.png")
    written = written.format(outside=outside)
    path = manifest(root, "c/1.png,x", f"{written},x")
    with pytest.raises(SourceError) as caught:
        _ = open_source(path).survey
    assert f"line 3, names '{written}', which leads to '" in str(caught.value)
    assert "--allow-outside FOLDER" in str(caught.value)
    assert keys(open_source(path, allow_outside=["/"])) == ["c/1.png", written]
    if "outside" in written and "outside/.." not in written:
        assert keys(open_source(path, allow_outside=[outside])) == ["c/1.png", written]


def test_a_manifest_may_name_what_lies_inside(root: Path) -> None:
    (root / "loop.png").symlink_to("loop.png")
    (root / "link.png").symlink_to("c/1.png")
    written = ["c/../c/1.png", "missing/x.png", f"{root}/c/1.png", "loop.png", "link.png"]
    (block,) = scanned(open_source(manifest(root, *(f"{name},x" for name in written))))
    assert block.keys == written
    assert [stat[0] for stat in block.stats] == [0, -1, 0, -1, 0]


def test_a_manifest_of_many_links_one_behind_the_other(root: Path) -> None:
    for i in range(3000):
        (root / f"{i}").symlink_to(f"{i + 1}")
    (block,) = scanned(open_source(manifest(root, "0,x", "0/x.png,x")))
    assert block.stats == [(-1, -1)] * 2


@pytest.mark.parametrize("start", ["", "path\n", 'path\n"a\n', "path\na.png\n"])
def test_a_giant_line_is_refused_without_being_read(tmp_path: Path, start: str) -> None:
    path = tmp_path / "m.csv"
    with path.open("w") as stream:
        stream.write(start + "x" * 70_000)
        stream.truncate(1 << 33)  # sparse: 8 GiB that take no room
    with pytest.raises(SourceError, match=r"more than 1,048,576 characters|cannot be read"):
        _ = open_source(path).survey


def test_a_row_that_never_ends_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('path\n"' + 'a\n","' * 500_000)
    with pytest.raises(SourceError, match=r"the row has more than 1,048,576 characters"):
        _ = open_source(path).survey


@pytest.mark.parametrize("header", ["path" + ",x" * 20_000, "path"])
def test_a_row_of_too_many_columns_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"{header}\na.png{',x' * 20_000}\n")
    with pytest.raises(SourceError, match=r"has 20,001 columns; at most 10,000"):
        _ = open_source(path).survey


def test_messages_do_not_repeat_a_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,label\n" + "x" * 100_000 + "\n")
    with pytest.raises(SourceError, match="line 2 has only 1 values") as caught:
        _ = open_source(path).survey
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["m.csv", "x.png"])
def test_a_pipe_or_a_device_is_no_source(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero-{name}").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / f"zero-{name}"):
        with pytest.raises(SourceError, match="neither a folder nor a regular file"):
            open_source(path)


def test_a_manifest_that_becomes_a_pipe_is_not_opened(root: Path) -> None:
    source = open_source(manifest(root, "c/1.png,x"))
    (root / "m.csv").unlink()
    os.mkfifo(root / "m.csv")
    with pytest.raises(SourceError, match="no regular file any more"):
        _ = source.survey
