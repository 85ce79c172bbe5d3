"""Opens HDF5 files, and turns what h5py and NumPy raise on damaged bytes into tlpipe's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from tlpipe.errors import DamagedFileError, FeatureFileError, TlpipeError
from tlpipe.files import is_file
from tlpipe.stages.store.structure import MEND, NO_FEATURE_FILE

FOREIGN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)
"""What they raise on damaged bytes: absurd sizes, lost objects, unknown types, no text."""


@contextlib.contextmanager
def foreign_errors(path: Path) -> Iterator[None]:
    """Turn what h5py and NumPy make of damaged bytes into one error."""
    try:
        yield
    except TlpipeError:
        raise
    except FOREIGN as exc:
        raise DamagedFileError(f"{str(path)!r} is damaged: {exc!r}.", hint=MEND) from exc


def open_hdf5(path: Path, content: Any) -> h5py.File:
    """Open a file for reading, or `content`, a file object, in its place.

    Raises
    ------
    FeatureFileError
        It is missing, cannot be read, or is no HDF5 file.
    """
    if content is None and not is_file(path):
        raise FeatureFileError(f"The feature file {str(path)!r} does not exist.")
    try:
        return h5py.File(path if content is None else content, "r", locking=False)
    except PermissionError as exc:
        raise FeatureFileError(f"{str(path)!r} cannot be read: {exc.strerror}.") from exc
    except FOREIGN as exc:
        raise FeatureFileError(
            f"{str(path)!r} is no HDF5 file, or is damaged: {exc}.",
            hint=f"{NO_FEATURE_FILE} {MEND}",
        ) from exc
