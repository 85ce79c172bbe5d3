"""Whether a worker sees the storage that its driver writes to, and is still wanted there."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from tlpipe.errors import ClusterError, OutputError


@dataclass(frozen=True)
class SharedStorage:
    """A file that the driver has written, and what it says as long as the run goes on.

    Attributes
    ----------
    note : pathlib.Path
        An absolute path.
    content : bytes
    """

    note: Path
    content: bytes

    @classmethod
    def of(cls, note: Path) -> SharedStorage:
        """Read the note, on the driver.

        Raises
        ------
        OutputError
            It cannot be read.
        """
        try:
            return cls(note, note.read_bytes())
        except OSError as exc:
            raise OutputError(
                f"The note {str(note)!r}, by which workers know the storage they share, cannot be"
                f" read: {exc.strerror or exc}.",
                hint="The folder of the output must be writable.",
            ) from exc

    def check(self) -> None:
        """Refuse to work, on a worker, where the note is not the driver's.

        Raises
        ------
        ClusterError
        """
        try:
            found = self.note.read_bytes()
        except OSError:
            found = b""
        if found != self.content:
            raise ClusterError(
                f"The node {socket.gethostname()!r} does not see what the driver writes in"
                f" {str(self.note.parent)!r}.",
                hint="The output's folder must be on storage that all nodes share, under the same"
                " path on each (NFS, Lustre and the like).",
            )
