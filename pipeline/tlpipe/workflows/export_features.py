"""export: from a feature file to a table that other tools read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlpipe.files import check_output, whole_file
from tlpipe.stages.store import SPAN_ROWS, FeatureFile
from tlpipe.stages.tables import FORMATS, TableBlock, TableSource, write_table
from tlpipe.workflows.note import note_of


@dataclass(frozen=True)
class ExportResult:
    """What ``export_features`` did.

    Attributes
    ----------
    path : pathlib.Path
    count, dim : int
        N and D.
    carries : bool
        Whether the table says which backbone made its vectors; CSV does not.
    rejects_left_out : int
        Rejects of the feature file that are not in the table.
    """

    path: Path
    count: int
    dim: int
    carries: bool
    rejects_left_out: int


def export_features(
    features: str | Path, output: str | Path, *, overwrite: bool = False
) -> ExportResult:
    """Write the embeddings of a feature file as a table, with their keys, labels and splits.

    Parameters
    ----------
    features : str or pathlib.Path
    output : str or pathlib.Path
        ``.parquet``, ``.npz`` or ``.csv``; see ``docs/reference/interchange.md``. It appears whole
        or not at all.
    overwrite : bool
        Whether an existing `output` may be replaced.

    Returns
    -------
    ExportResult

    Raises
    ------
    FeatureFileError, DamagedFileError
        `features` is no feature file, or a damaged one.
    OutputError
        The output cannot be written.
    """
    features, output = Path(features), Path(output)
    check_output(output, overwrite=overwrite, suffixes=FORMATS, inputs=[features])
    suffix = output.suffix.lower()
    carries = suffix != ".csv"
    with FeatureFile(features) as file, whole_file(output) as temporary:
        note, left_out = note_of(file)

        def blocks(vectors: bool) -> Iterator[TableBlock]:
            for start in range(0, file.count, SPAN_ROWS):
                yield _block(file, start, min(start + SPAN_ROWS, file.count), vectors)

        source = TableSource(
            file.count, file.dim, file.classes, file.header.fingerprint, note, blocks
        )
        write_table(temporary, suffix, source)
        left_out = left_out if carries else file.reject_count
        return ExportResult(output, file.count, file.dim, carries, left_out)


def _block(file: FeatureFile, start: int, stop: int, vectors: bool) -> TableBlock:
    rows = file.rows(start, stop, vectors=vectors)
    return TableBlock(
        keys=rows.keys,
        vectors=rows.vectors,
        labels=rows.labels,
        splits=rows.splits,
        groups=rows.groups,
        content_sha256=rows.content_sha256,
        stat=np.column_stack([rows.stat["size_bytes"], rows.stat["mtime_ns"]]),
    )
