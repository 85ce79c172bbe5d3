"""The members of a tar archive, found by walking its headers in constant memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from tlpipe.errors import SourceError
from tlpipe.stages.source.archive_reader import Stretch, stated_stat
from tlpipe.stages.source.members import DAMAGE, Entry
from tlpipe.stages.source.open_files import ChangedError, OpenedFile, OpenFiles
from tlpipe.stages.source.survey import Survey
from tlpipe.stages.source.tar_header import (
    BLOCK,
    FOLDER,
    LINKS,
    LONG_LINK,
    LONG_NAME,
    MAGIC,
    PAX,
    PAX_GLOBAL,
    REGULAR,
    SPARSE,
    TELLING,
    WITHOUT_CONTENT,
    ZEROS,
    BadHeaderError,
    TarHeader,
    parsed,
    pax_records,
    text_of,
)
from tlpipe.stages.source.walk import IMAGE_EXTENSIONS
from tlpipe.types import Reason, Reject, Stage

LINK = "link inside an archive"
SPECIAL = "special file inside an archive"

_LEAST_READ, _MOST_READ = 1 << 12, 1 << 18
_MOST_META = 1 << 20  # bytes of a long name or of a pax header
_MOST_NAME = 1 << 12  # bytes of a name, as of a path on Linux
_SEARCHED = 1 << 20  # bytes that are looked through at a time for the next header


class NotAnArchiveError(SourceError):
    """A file is not of the kind that its name says."""


@dataclass
class Window:
    """Reads here and there in a file, forward: large pieces where what is asked lies close."""

    file: OpenedFile
    _start: int = 0
    _held: bytes = b""
    _ahead: int = _LEAST_READ

    def at(self, offset: int, size: int) -> bytes:
        """Bytes at an offset, fewer only where the file ends."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._held):
            # What lies just behind the piece before is worth a larger piece; after a jump it is
            # not: then headers are far apart, with images between them that nobody asks for.
            near = 0 <= begin <= len(self._held) + BLOCK
            self._ahead = min(2 * self._ahead, _MOST_READ) if near else _LEAST_READ
            self._held = self.file.whole(offset, max(size, self._ahead))
            self._start, begin = offset, 0
        return self._held[begin : begin + size]


@dataclass
class _Meta:
    """What headers say of the member that comes next."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False


@dataclass
class TarWalk:
    """One walk over the headers of an archive.

    Parameters
    ----------
    files : OpenFiles
    number : int
        Of the archive among them.
    where : str
        What messages call it.
    survey : Survey
        Filled with what is left out.
    """

    files: OpenFiles
    number: int
    where: str
    survey: Survey
    _meta: _Meta | None = None
    _lost: bool = False  # whether a row says already that members may be lost

    def __post_init__(self) -> None:
        file = self.files.opened(self.number)
        self._stamp = file.stamp()
        self._window = Window(file)

    def members(self) -> Iterator[Entry]:
        """Regular files in their order; what is damaged, as a reject.

        Raises
        ------
        NotAnArchiveError
            It does not begin like a tar archive.
        OSError, ChangedError
            It cannot be read, or changed meanwhile.
        """
        at, end = 0, self._stamp[0]
        window = self._window
        while True:
            here = at
            block = window.at(here, BLOCK)
            if block == ZEROS or len(block) < BLOCK:
                break
            try:
                header = parsed(block)
                at = here + BLOCK
                size = header.size
                if (
                    header.kind in REGULAR
                    and self._meta is None
                    and at + size <= end
                    and header.name[-1:] != b"/"
                ):
                    yield text_of(header.name), Stretch(self.number, at, size, self._stamp)
                    at += size + -size % BLOCK
                elif header.kind in PAX and not TELLING.search(self._meta_content(at, size)):
                    at += size + -size % BLOCK
                else:
                    at = yield from self._special(header, here, at)
            except BadHeaderError as exc:
                if not here and block[257:262] != MAGIC:
                    raise self._no_tar(block) from exc
                self._lost = True
                yield self._damage(here, Reason.CORRUPT, f"{exc}: members may be lost here.")
                self._meta = None
                at = self._next_header(here + BLOCK)
        if window.file.stamp() != self._stamp:
            raise ChangedError
        yield from self._end(here, block)

    def _special(self, header: TarHeader, here: int, at: int) -> Generator[Entry, None, int]:
        """Take what is no plain file; give where the next header is."""
        kind, size = header.kind, header.size
        if kind in (LONG_NAME, LONG_LINK, PAX_GLOBAL) or kind in PAX:
            content = self._meta_content(at, size)
            self._meta = self._meta or _Meta()
            _take_meta(self._meta, kind, content)
            return at + size + -size % BLOCK
        meta, self._meta = self._meta or _Meta(), None
        name = text_of(header.name if meta.name is None else meta.name)
        size = size if meta.size is None else meta.size
        if kind in WITHOUT_CONTENT or (kind in REGULAR and name.endswith("/")):
            if kind in LINKS:
                self.survey.skipped[LINK] += 1
            elif kind != FOLDER and kind not in REGULAR:
                self.survey.skipped[SPECIAL] += 1
            return at
        if kind == SPARSE:
            at = self._after_sparse(here, at)
        cut = at + size > self._stamp[0]
        if cut:
            yield self._cut(name, size, here)
        elif kind == SPARSE or meta.sparse:
            detail = "It is stored with holes (a sparse file), which is not read."
            yield name, self._reject(Reason.UNREADABLE, detail, size)
        elif kind in REGULAR:
            yield name, Stretch(self.number, at, size, self._stamp)
        else:
            self.survey.skipped[SPECIAL] += 1
        return at + size + -size % BLOCK

    def _meta_content(self, at: int, size: int) -> bytes:
        if size > _MOST_META:
            raise BadHeaderError(f"A long name or pax header claims {size:,} bytes")
        content = self._window.at(at, size)
        if len(content) < size:
            raise BadHeaderError("The archive ends within a long name or pax header")
        return content

    def _after_sparse(self, here: int, at: int) -> int:
        """Where the content of a file with holes begins: behind the list of its pieces."""
        more = self._window.at(here, BLOCK)[482]
        while more:
            block = self._window.at(at, BLOCK)
            if len(block) < BLOCK:
                raise BadHeaderError("The archive ends within the list of a sparse file's pieces")
            more = block[504]
            at += BLOCK
        return at

    def _cut(self, name: str, size: int, here: int) -> Entry:
        """A member that the archive ends within, or that lies about its size."""
        detail = (
            f"The archive ends within it: {size:,} bytes are stated, at byte {here:,} of"
            f" {self._stamp[0]:,}. What was behind it is lost."
        )
        self._lost = True
        self._note(f"{self.where} ends early, within {name[:200]!r}: it may have been cut.")
        if name[name.rfind(".") :].lower() in IMAGE_EXTENSIONS:
            return name, self._reject(Reason.TRUNCATED, detail, size)
        return self._damage(here, Reason.TRUNCATED, detail)

    def _end(self, at: int, block: bytes) -> Iterator[Entry]:
        """See that the archive ends where it should."""
        if not at and len(block) < BLOCK:
            raise self._no_tar(block)
        if block == ZEROS:
            behind = self._window.at(at + BLOCK, _SEARCHED)
            if behind.strip(b"\0"):
                self._note(
                    f"{self.where} ends at byte {at:,}; what stands behind that is not read (were"
                    " archives put together without 'tar --concatenate'?)."
                )
        elif block:
            yield self._damage(at, Reason.TRUNCATED, "The archive ends within a header.")
        elif not self._lost:
            self._note(f"{self.where} ends without the mark of an end: it may have been cut.")

    def _next_header(self, at: int) -> int:
        """Where the next header may stand, by the word that all of today have in them."""
        while content := self._window.at(at, _SEARCHED):
            found = content.find(MAGIC)
            while found >= 0:
                if found % BLOCK == 257:
                    return at + found - 257
                found = content.find(MAGIC, found + 1)
            at += len(content)
        return self._stamp[0] + 1

    def _no_tar(self, start: bytes) -> NotAnArchiveError:
        packed = next((how for magic, how in _PACKED.items() if start.startswith(magic)), None)
        if packed is not None:
            return NotAnArchiveError(
                f"{self.where} is a compressed tar archive: its members cannot be read without"
                " unpacking all that stands before them.",
                hint=f"Unpack that layer once ({packed}): images hardly get smaller by it.",
            )
        what = "is empty" if not start else f"begins with {start[:16]!r}"
        return NotAnArchiveError(
            f"{self.where} is no tar archive: it {what}.", hint="Make it again, or leave it out."
        )

    def _damage(self, at: int, reason: Reason, detail: str) -> Entry:
        return f"{DAMAGE}{at}", self._reject(reason, detail, -1)

    def _reject(self, reason: Reason, detail: str, size: int) -> Reject:
        return Reject(Stage.SOURCE, reason, detail, stated_stat(size, self._stamp))

    def _note(self, text: str) -> None:
        if len(self.survey.notices) < _MOST_NOTICES:
            self.survey.notices.append(text)


def _take_meta(meta: _Meta, kind: int, content: bytes) -> None:
    """Keep what a header says of the member behind it."""
    if kind == LONG_NAME:
        meta.name = content.partition(b"\0")[0]
    elif kind in PAX:
        records = pax_records(content)
        meta.name = records.get(b"GNU.sparse.name", records.get(b"path", meta.name))
        meta.sparse = any(key.startswith(b"GNU.sparse.") for key in records)
        size = records.get(b"size")
        if size is not None:
            if not size.isdigit() or len(size) > 20:
                raise BadHeaderError("The pax header before it states a size that is none")
            meta.size = int(size)
    if meta.name is not None and len(meta.name) > _MOST_NAME:
        raise BadHeaderError(f"A name in it has {len(meta.name):,} bytes")


_MOST_NOTICES = 20

_PACKED = {
    b"\x1f\x8b": "gunzip --keep FILE",
    b"BZh": "bunzip2 --keep FILE",
    b"\xfd7zXZ\0": "unxz --keep FILE",
    b"\x28\xb5\x2f\xfd": "unzstd --keep FILE",
}
