"""Parquet files as sources: manifests, and tables with image bytes in a column.

Loads pyarrow, and is imported only where a source is, or holds, a ``.parquet`` file.

file    -> one open file: what its footer claims, and its columns a batch at a time
columns -> which column is the image, the label ..., and the names of classes
values  -> cells as text
rows    -> a manifest
table   -> image tables: lists items, without reading images
reader  -> reads the images
"""

from tlpipe.stages.source.parquet.table import open_parquet_file as open_parquet_file
from tlpipe.stages.source.parquet.table import open_tables as open_tables
