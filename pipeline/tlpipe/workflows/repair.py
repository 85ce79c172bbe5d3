"""repair: makes a whole feature file of what is good in a damaged one."""

from __future__ import annotations

from pathlib import Path

from tlpipe.files import check_output
from tlpipe.lock import writer_lock
from tlpipe.stages.store import Mended, mend_file
from tlpipe.types import FEATURE_SUFFIXES


def repair(path: str | Path, output: str | Path, *, overwrite: bool = False) -> Mended:
    """Write every good row of a feature file to another one.

    What is lost can be embedded again with ``embed(source, output)``, which keeps the good rows.

    Parameters
    ----------
    path : str or pathlib.Path
        The feature file, damaged or not; it is only read.
    output : str or pathlib.Path
        The file to write; it appears whole or not at all.
    overwrite : bool
        Whether `output` may exist already.

    Returns
    -------
    Mended

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version, or nothing can be read of it.
    DamagedFileError
        Nothing in it is good, or it cannot be told what made its vectors.
    LockedError
        Another process is writing `output`.
    OutputError
        `output` cannot be written, exists already, or is the very file that is to be repaired.
    """
    path, output = Path(path), Path(output)
    check_output(output, overwrite=overwrite, suffixes=FEATURE_SUFFIXES, inputs=[path])
    with writer_lock(output):
        return mend_file(path, output)
