"""Estimators for scikit-learn: a transformer from images to embeddings, and a linear probe.

Examples
--------
>>> from sklearn.pipeline import make_pipeline
>>> from tlpipe.sklearn import ImageEmbedder, LinearProbe
>>> model = make_pipeline(ImageEmbedder(), LinearProbe())
>>> model.fit(paths, labels)  # doctest: +SKIP

embedder -> ImageEmbedder
images   -> ... what counts as images
probe    -> LinearProbe
folds    -> ... how it parts the rows to choose its settings
fitting  -> ... how its head is trained
"""

from tlpipe.sklearn.embedder import ImageEmbedder
from tlpipe.sklearn.probe import LinearProbe

__all__ = ["ImageEmbedder", "LinearProbe"]
