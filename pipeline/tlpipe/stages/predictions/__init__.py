"""Predictions: writes what a classifier says, one row per input, in order.

Takes outcomes, gives a CSV, JSON Lines or Parquet file that is whole or not there, in constant
memory; and parts, the finished work of a run that is under way or was cut short. Imports ``types``,
``files``, ``label_cells`` and NumPy; pyarrow where the file is Parquet.

rows      -> what a row says, made of an outcome
write     -> the file: CSV and JSON Lines
parquet   -> ... and Parquet
parts     -> rows that a crash cannot take
part_file -> ... as a file
saved     -> ... found again by the next run
"""

from tlpipe.stages.predictions.part_file import rows_of_part as rows_of_part
from tlpipe.stages.predictions.part_file import write_part as write_part
from tlpipe.stages.predictions.parts import PredictionParts as PredictionParts
from tlpipe.stages.predictions.rows import Columns as Columns
from tlpipe.stages.predictions.rows import Form as Form
from tlpipe.stages.predictions.rows import Row as Row
from tlpipe.stages.predictions.saved import SavedRows as SavedRows
from tlpipe.stages.predictions.write import FORMATS as FORMATS
from tlpipe.stages.predictions.write import PredictionSummary as PredictionSummary
from tlpipe.stages.predictions.write import PredictionWriter as PredictionWriter
from tlpipe.stages.predictions.write import prediction_writer as prediction_writer
