"""Part: what has arrived of a file, kept beside its target until it is whole and right."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tlpipe.errors import OutputError
from tlpipe.files import is_file, move_whole, whole_file
from tlpipe.web import FetchError


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file must be; None for what is not known yet.

    Attributes
    ----------
    size_bytes : int or None
    sha256 : str or None
        64 hexadecimal digits.
    """

    size_bytes: int | None = None
    sha256: str | None = None

    def check_size(self, size_bytes: int | None) -> None:
        """Raise ``WrongFileError`` for another size than expected; None, not known, passes."""
        if self.size_bytes is not None and size_bytes not in (None, self.size_bytes):
            raise WrongFileError(f"it has {size_bytes:,} bytes; expected were {self.size_bytes:,}")

    def check(self, size_bytes: int, sha256: str) -> Expected:
        """Both facts of a file that is as expected; ``WrongFileError`` for another one."""
        self.check_size(size_bytes)
        if self.sha256 is not None and sha256 != self.sha256.lower():
            raise WrongFileError(f"its SHA-256 is {sha256}; expected was {self.sha256.lower()}")
        return Expected(size_bytes, sha256)


class WrongFileError(FetchError):
    """What arrived is not the file that was expected."""


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn a refusal of the system to write `target`, or a file beside it, into OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as exc:
        raise OutputError(
            f"The file {str(target)!r} could not be written: {exc.strerror or exc}.",
            hint="What has arrived is kept: the same command continues there.",
        ) from exc


class Part:
    """The partial file of `target`, and from where its content came.

    A context: the file is open inside it. Every ``write`` reaches the operating system before it
    returns, so that a killed process loses nothing. Opening reads what is there, since the
    checksum runs along with what arrives.

    Attributes
    ----------
    size : int
        Bytes that have arrived.
    resumed : bool
        Whether these come from more than one answer, or from an earlier process: a wrong checksum
        may then come from their not fitting together.
    url, etag : str
        Address that gave the first bytes, and its strong ETag; empty where not known.
    total : int or None
        Size of the whole file, as that address stated it.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._forget()

    def _forget(self) -> None:
        self.size, self.resumed, self._hash = 0, False, hashlib.sha256()
        self.url = self.etag = ""
        self.total: int | None = None

    def __enter__(self) -> Part:
        self._forget()
        with writing(self._target):
            if is_file(self._path):
                with self._path.open("rb") as stream:
                    self._hash = hashlib.file_digest(stream, hashlib.sha256)
                    self.size = stream.tell()
                self.resumed = self.size > 0
            self._stream = self._path.open("ab")
        if self.size:
            self._read_note()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        with writing(self._target):
            self._stream.close()
            if self.size == 0:
                self.remove()
        if self.size and isinstance(exc, KeyboardInterrupt | SystemExit):
            exc.add_note(
                f"{self.size:,} bytes of {self._target.name!r} are kept; the same command goes on"
                " from there."
            )

    def _read_note(self) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._note.read_bytes())
            total = note["total"]
            self.url, self.etag = str(note["url"]), str(note["etag"])
            self.total = None if total is None else int(total)

    def restart(self, url: str = "", etag: str = "", total: int | None = None) -> None:
        """Throw away what has arrived; what comes next is from `url`."""
        with writing(self._target):
            if self.size:
                self._stream.truncate(0)
            self._forget()
            self.url, self.etag, self.total = url, etag, total
            if url:
                note = {"url": url, "etag": etag, "total": total}
                with whole_file(self._note) as temporary:
                    temporary.write_text(json.dumps(note), encoding="utf-8")

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        with writing(self._target):
            self._stream.write(chunk)
            self._stream.flush()
        self._hash.update(chunk)
        self.size += len(chunk)

    def check(self, expected: Expected) -> Expected:
        """Size and SHA-256 of what has arrived; ``WrongFileError`` if they are not as expected."""
        return expected.check(self.size, self._hash.hexdigest())

    def finish(self) -> None:
        """Give the file, which was found whole and right, its name."""
        with writing(self._target):
            self._stream.close()
            move_whole(self._path, self._target)
            self._note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the partial file and its note, where there are any."""
        with contextlib.suppress(OSError):  # they are in nobody's way
            self._path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
