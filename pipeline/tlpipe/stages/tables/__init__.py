"""Tables: reads and writes vectors with their keys and labels as Parquet, NPZ and CSV.

The only package that imports pyarrow, and only where a ``.parquet`` file is read or written.
``docs/reference/interchange.md`` specifies what is written. Imports ``errors``, ``types`` and
NumPy.

What is read may come from a stranger: nothing is unpickled or extracted, nothing is larger in
memory than a few rows, and nothing may claim to unpack to far more than the file holds.
"""

from tlpipe.stages.tables.block import MOST_NOTE as MOST_NOTE
from tlpipe.stages.tables.block import Table as Table
from tlpipe.stages.tables.block import TableBlock as TableBlock
from tlpipe.stages.tables.block import TableSource as TableSource
from tlpipe.stages.tables.csv_file import read_pairs as read_pairs
from tlpipe.stages.tables.files import FORMATS as FORMATS
from tlpipe.stages.tables.files import open_table as open_table
from tlpipe.stages.tables.files import write_table as write_table
