from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tlpipe.errors import OutputError
from tlpipe.files import CACHE_VARIABLE, cache_dir, check_output, sha256_file, whole_file

Leftovers = Callable[[], list[str]]


def test_a_file_appears_whole(tmp_path: Path, leftovers: Leftovers) -> None:
    target = tmp_path / "out.txt"
    with whole_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert leftovers() == []


def test_a_failure_leaves_the_old_file(tmp_path: Path, leftovers: Leftovers) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert leftovers() == []


def test_a_full_disk_is_an_output_error(tmp_path: Path, leftovers: Leftovers) -> None:
    target = tmp_path / "out.txt"
    with (
        pytest.raises(OutputError, match="No space left on device") as caught,
        whole_file(target) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert isinstance(caught.value, OSError)
    assert not target.exists()
    assert leftovers() == []


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with whole_file(tmp_path / "out"):
        pass
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    real = tmp_path / "real.txt"
    real.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(real)
    with whole_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "no" / "out.h5", "does not exist"),
        (lambda p: p, "is a folder"),
        (lambda p: Path(os.devnull), "is not a regular file"),
    ],
)
def test_impossible_outputs_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(OutputError, match=message):
        check_output(make(tmp_path), overwrite=True)


def test_an_existing_output_is_refused_unless_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.touch()
    with pytest.raises(OutputError) as caught:
        check_output(target, overwrite=False)
    assert str(caught.value) == (
        f"The output {str(target)!r} exists already."
        " Choose another --output, or replace it with --overwrite."
    )
    check_output(target, overwrite=True)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(path) == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_cache_dir_follows_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "c"))
    assert cache_dir() == tmp_path / "c"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_dir().name == "tlpipe"
