"""Writes rows of predictions to a Parquet file, in row groups of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tlpipe.stages.predictions.rows import Form, Row
from tlpipe.stages.predictions.write import Write

_GROUP_ROWS = 16_384
"""Rows of a row group, which are in memory until it is written: some 10 MB."""


@contextmanager
def parquet_writer(path: Path, form: Form) -> Iterator[Write]:
    """Give what writes rows; the columns are those of a CSV file, labels and sets are lists."""
    schema = _schema(form)
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            if columns["key"]:
                writer.write_table(pa.table(columns, schema=schema))
                for values in columns.values():
                    values.clear()

        def write(row: Row, kept: Sequence[str]) -> None:
            for column, value in zip(columns.values(), _values(row, kept, form), strict=True):
                column.append(value)
            if len(columns["key"]) == _GROUP_ROWS:
                flush()

        yield write
        flush()


def _schema(form: Form) -> pa.Schema:
    kinds = {
        "labels": pa.list_(pa.string()),
        "set": pa.list_(pa.string()),
        "unknown": pa.bool_(),
        "unknown_score": pa.float64(),
    }
    kept = set(form.kept_names())
    fields = []
    for name in form.header():
        if name in kept:
            kind = pa.string()
        elif name.startswith("probability"):
            kind = pa.float64()
        else:
            kind = kinds.get(name, pa.string())
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _values(row: Row, kept: Sequence[str], form: Form) -> list[Any]:
    """Values of a row, in the order of the header; None for what it does not say."""
    values: list[Any] = [row.key, *kept, "ok" if row.reject is None else "rejected"]
    if form.multilabel:
        values.append(row.labels)
    top = [*row.top, *[(None, None)] * (form.top_k - len(row.top))]
    values += [value for pair in top for value in pair]
    if form.columns.unknown:
        values += row.unknown or (None, None)
    if form.columns.sets:
        values.append(row.possible)
    return values + list(row.reject or (None, None))
