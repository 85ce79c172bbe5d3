"""verify_features: reads all of a feature file, and says whether it is as it was stored."""

from __future__ import annotations

from pathlib import Path

from tlpipe.stages.store import FileReport, check_file


def verify_features(path: str | Path) -> FileReport:
    """Check all of a feature file: structure, checksums, and whether the values make sense.

    Parameters
    ----------
    path : str or pathlib.Path

    Returns
    -------
    FileReport
        With all that is wrong, by dataset, rows and keys.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version, or nothing can be read of it.
    OutputError
        There is no room for a temporary index.
    """
    return check_file(Path(path))
