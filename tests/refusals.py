"""What the tests of errors ask of one: its class, and its words."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tlpipe.errors import TlpipeError


@contextmanager
def refused(kind: type[TlpipeError], *words: str) -> Iterator[None]:
    """Expect an error of this very class, in whose message and hint all of `words` stand."""
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    said = str(caught.value)
    for word in words:
        assert word in said


def disk_error(patch: pytest.MonkeyPatch, path: Path, number: int = errno.EIO) -> None:
    """From now on that file cannot be opened, as on a disk that fails."""
    opened, descriptor = io.open, os.open

    def same(other: Any) -> bool:
        return isinstance(other, str | Path) and Path(other) == path

    def failing_open(file: Any, *args: Any, **options: Any) -> Any:
        if same(file):
            raise OSError(number, os.strerror(number), str(file))
        return opened(file, *args, **options)

    def failing_descriptor(file: Any, *args: Any, **options: Any) -> int:
        if same(file):
            raise OSError(number, os.strerror(number), str(file))
        return descriptor(file, *args, **options)

    patch.setattr(io, "open", failing_open)
    patch.setattr(os, "open", failing_descriptor)
