"""What is wrong with a job file: collected, so that all of it is said at once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator

from tlpipe.errors import JobError, TlpipeError

_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*[a-z])")


class Mistakes:
    """The mistakes of one job file, in the order in which they were found.

    Parameters
    ----------
    where : str
        What messages call the job file.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._lines: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Add one: `where` it is, such as "[options] batch_size", and `what` is wrong with it."""
        line = " ".join(f"{where} {what}".split())
        if line not in self._lines:
            self._lines.append(line)

    def add_error(self, where: str, exc: TlpipeError, flags: Collection[str] = ()) -> None:
        """Add what a check of tlpipe's says, in the words of a job file.

        Parameters
        ----------
        where : str
        exc : TlpipeError
        flags : collection of str
            Settings that are true or false.
        """
        self.add(f"{where}:", in_job_words(str(exc), flags))

    @contextlib.contextmanager
    def catching(self, where: str, flags: Collection[str] = ()) -> Iterator[None]:
        """Add the error that is raised within, if one is."""
        try:
            yield
        except TlpipeError as exc:
            self.add_error(where, exc, flags)

    def __len__(self) -> int:
        return len(self._lines)

    def check(self) -> None:
        """Raise all of them, if there are any.

        Raises
        ------
        JobError
        """
        if self._lines:
            raise JobError(self._where, self._lines)


def in_job_words(text: str, flags: Collection[str]) -> str:
    """A message that names options as the command line does, with their names in a job file."""

    def replaced(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return f"'{name} = true'" if name in flags else f"'{name}'"

    return _FLAG.sub(replaced, text)
