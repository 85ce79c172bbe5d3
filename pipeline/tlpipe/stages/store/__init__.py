"""Store: writes and reads feature files (``features.h5``, format 1).

The only package that imports h5py. Takes outcomes in the source's order, gives a file that is
whole or not there; reads such files back. ``docs/feature-file.md`` specifies the format. Imports
``card``, ``errors``, ``types`` and ``files``.

No HDF5 file that anyone may open is written in place: rows go to a temporary file, which takes the
output's name when it is whole and on disk. Since a file under its final name never changes, nothing
needs HDF5's file locks, and they are off (they fail on some network file systems).
"""

from tlpipe.stages.store.layout import FORMAT as FORMAT
from tlpipe.stages.store.layout import FORMAT_VERSION as FORMAT_VERSION
from tlpipe.stages.store.layout import FeatureHeader as FeatureHeader
from tlpipe.stages.store.read import FeatureInfo as FeatureInfo
from tlpipe.stages.store.read import Features as Features
from tlpipe.stages.store.read import inspect_features as inspect_features
from tlpipe.stages.store.read import read_features as read_features
from tlpipe.stages.store.read import read_rejects as read_rejects
from tlpipe.stages.store.write import FeatureSummary as FeatureSummary
from tlpipe.stages.store.write import write_features as write_features
