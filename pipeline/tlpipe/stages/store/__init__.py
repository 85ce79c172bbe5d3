"""Store: writes and reads feature files (``features.h5``), and knows what they hold already.

The only package that imports h5py. ``docs/reference/feature-file.md`` specifies the format. Imports
``card``, ``errors``, ``files``, ``quantities`` and ``types``.

* ``layout``, ``rows``, ``write``, ``read``, ``stored``, ``features``: the file; ``growing`` and
  ``one`` are one HDF5 file that is written or read, ``guard`` survives a full disk, ``structure``
  tells a feature file from anything else;
* ``set_index``, ``generations``, ``many``: a set of files, as what grows too large is stored: its
  index, the folders of its parts, and the parts read as one;
* ``content``, ``remains``, ``check``, ``mend``: how HDF5 reads it, what can be read of a damaged
  one, all that is wrong with it, and what is good; ``check_set``, ``mend_set``: of a set as well;
* ``known``, ``cursor``, ``contents``, ``index``: which items and contents have a vector already;
* ``parts``: the finished work of a run.

No HDF5 file that anyone may open is written in place: rows go to a temporary file, which takes the
output's name when it is whole and on disk. Since a file under its final name never changes, nothing
needs HDF5's file locks, and they are off (they fail on some network file systems).
"""

from tlpipe.stages.store.check import FileReport as FileReport
from tlpipe.stages.store.check import Finding as Finding
from tlpipe.stages.store.check_set import check_file as check_file
from tlpipe.stages.store.contents import Contents as Contents
from tlpipe.stages.store.features import FeatureInfo as FeatureInfo
from tlpipe.stages.store.features import Features as Features
from tlpipe.stages.store.features import inspect_features as inspect_features
from tlpipe.stages.store.features import read_features as read_features
from tlpipe.stages.store.features import read_rejects as read_rejects
from tlpipe.stages.store.index import DigestIndex as DigestIndex
from tlpipe.stages.store.known import Known as Known
from tlpipe.stages.store.known import Run as Run
from tlpipe.stages.store.layout import FORMAT as FORMAT
from tlpipe.stages.store.layout import FORMAT_VERSION as FORMAT_VERSION
from tlpipe.stages.store.layout import OPTIONAL_FIELDS as OPTIONAL_FIELDS
from tlpipe.stages.store.layout import SET_ABOVE as SET_ABOVE
from tlpipe.stages.store.layout import SPAN_ROWS as SPAN_ROWS
from tlpipe.stages.store.layout import SPLITS_FROM_SOURCE as SPLITS_FROM_SOURCE
from tlpipe.stages.store.layout import FeatureHeader as FeatureHeader
from tlpipe.stages.store.layout import declared_backbone as declared_backbone
from tlpipe.stages.store.mend_set import mend_file as mend_file
from tlpipe.stages.store.mended import Mended as Mended
from tlpipe.stages.store.parts import Parts as Parts
from tlpipe.stages.store.parts import part_path as part_path
from tlpipe.stages.store.read import FeatureFile as FeatureFile
from tlpipe.stages.store.read import parted_as as parted_as
from tlpipe.stages.store.read import rows_per_file as rows_per_file
from tlpipe.stages.store.rows import Rows as Rows
from tlpipe.stages.store.rows import rows_of as rows_of
from tlpipe.stages.store.stored import StoredVectors as StoredVectors
from tlpipe.stages.store.summary import FeatureSummary as FeatureSummary
from tlpipe.stages.store.write import FeatureWriter as FeatureWriter
from tlpipe.stages.store.write import feature_writer as feature_writer
