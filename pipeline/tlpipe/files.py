"""Files: the cache folder, checksums, outputs that appear whole or not at all, lines with an end.

Owns every write to disk that a reader may see. Takes paths, gives paths and digests.
May import ``errors`` only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TextIO

from tlpipe.errors import OutputError, TlpipeError

CACHE_VARIABLE = "TLPIPE_CACHE"
CARDS_VARIABLE = "TLPIPE_CARDS"


def cache_dir() -> Path:
    """Folder for prepared backbones: ``$TLPIPE_CACHE``, else the platform's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("tlpipe", appauthor=False))


def user_cards_dir() -> Path:
    """Folder of the user's own cards: ``$TLPIPE_CARDS``, else in the platform's data folder."""
    if chosen := os.environ.get(CARDS_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("tlpipe", appauthor=False)) / "cards"


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises
    ------
    OutputError
        The system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"The folder {str(folder)!r} cannot be made: {exc.strerror}.",
            hint=f"Choose other ones with {CACHE_VARIABLE}=FOLDER (downloads and prepared networks)"
            f" and {CARDS_VARIABLE}=FOLDER (your own cards).",
        ) from exc


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False, not an error, where the system cannot tell."""
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises for a name that is too long)


def is_dir(path: Path) -> bool:
    """Whether there is a folder; False, not an error, where the system cannot tell."""
    return os.path.isdir(path)  # noqa: PTH112  (as above)


def is_utf8(name: str) -> bool:
    """Whether a name can be written as UTF-8: that of a file on Linux may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class RowLines:
    """Lines of a CSV text, none read further than a row may go; quotes may spread a row over many.

    Parameters
    ----------
    stream : text file
    most : int
        Characters that a row may have.
    too_long : callable
        Gives the error to raise, for the number of the line.
    """

    def __init__(
        self, stream: TextIO, most: int, too_long: Callable[[int], OSError | ValueError]
    ) -> None:
        self._stream, self._most, self._too_long = stream, most, too_long
        self._number, self._room = 0, most

    def next_row(self) -> None:
        """Begin a new row."""
        self._room = self._most

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self._room + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._room -= len(line)
        if self._room < 0:
            raise self._too_long(self._number)
        return line


def check_output(
    path: Path,
    *,
    overwrite: bool,
    suffixes: Sequence[str] = (),
    inputs: Sequence[Path] = (),
) -> None:
    """Refuse an output that could not or should not be written, before any work is done for it.

    Parameters
    ----------
    path : pathlib.Path
    overwrite : bool
        Whether the file may exist already.
    suffixes : sequence of str
        Extensions it may have; any if empty.
    inputs : sequence of pathlib.Path
        Files the work reads: writing over one of them would destroy it, whatever `overwrite` says.

    Raises
    ------
    OutputError
        The folder is missing or read-only, the path is a folder or a device, the extension is
        another one, the file exists and `overwrite` is false, or it is one of `inputs`.
    """
    if is_dir(path):
        raise OutputError(
            f"The output {str(path)!r} is a folder.", hint="Name a file, for example inside it."
        )
    if suffixes and path.suffix.lower() not in suffixes:
        raise OutputError(
            f"The output {str(path)!r} must end in {_either(suffixes)}.",
            hint=f"For example {str(path.with_name(path.name + suffixes[0]))!r}.",
        )
    if os.path.lexists(path):
        _check_existing(path, overwrite, inputs)
    check_parent(path)


def check_parent(path: Path) -> None:
    """Refuse an output whose folder is missing or read-only.

    Raises
    ------
    OutputError
    """
    if not is_dir(path.parent):
        raise OutputError(
            f"The folder {str(path.parent)!r} of the output {path.name!r} does not exist.",
            hint="Create it first.",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"The folder {str(path.parent)!r} cannot be written to.",
            hint="Choose another --output, or correct the folder's permissions.",
        )


def _either(names: Sequence[str]) -> str:
    """Names in words: ".a", ".a or .b", ".a, .b or .c"."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _check_existing(path: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
    if not is_file(path):
        raise OutputError(
            f"The output {str(path)!r} exists and is not a regular file.",
            hint="An output is renamed into place when it is whole, so it must be a file.",
        )
    if any(is_file(other) and path.samefile(other) for other in inputs):
        raise OutputError(
            f"The output {str(path)!r} is a file that this command reads.",
            hint="Choose another --output.",
        )
    if not overwrite:
        raise OutputError(
            f"The output {str(path)!r} exists already.",
            hint="Choose another --output, or replace it with --overwrite.",
        )


@contextlib.contextmanager
def whole_file(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name once the block has ended well.

    `temporary`, where it is given, is a path on the same file system to use instead.

    The data are on disk before the rename, and the rename before this returns, as far as ``fsync``
    can promise. When the block raises, the temporary file is removed and a file that
    stood at `path` before is untouched. The file gets the permissions any new file would get.

    Raises
    ------
    OutputError
        The system refused to create, write or rename the file (no space left, no permission …).
    """
    target = Path(os.path.realpath(path))  # write through a symbolic link, do not replace it
    chosen = temporary is not None
    temporary = temporary or target.with_name(f".tlpipe-{secrets.token_hex(8)}.tmp")
    try:
        temporary.touch(exist_ok=chosen)
        yield temporary
        move_whole(temporary, target)
    except (BrokenPipeError, TlpipeError):  # the former is a reader of ours that went away
        raise
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise OutputError(
            f"The output {str(path)!r} could not be written: {reason}.",
            hint="Nothing was left behind; a file of that name that existed before is unchanged.",
        ) from exc
    finally:
        with contextlib.suppress(OSError):  # an unusable folder; the error is being raised already
            temporary.unlink(missing_ok=True)


def move_whole(temporary: Path, target: Path) -> None:
    """Give a finished file its name: content on disk first, then the rename, then the folder.

    Both paths must be on the same file system.

    Raises
    ------
    OSError
        The system refused; `target` is as it was.
    """
    _fsync(temporary)
    temporary.replace(target)
    sync_folder(target.parent)
    if temporary.parent != target.parent:
        sync_folder(temporary.parent)


def sync_folder(folder: Path) -> None:
    """Push the names in a folder to the disk, where the file system can do that at all."""
    with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
        _fsync(folder)


def _fsync(path: Path) -> None:
    """Push a file's or folder's content to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its rename is journaled by the file system
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
