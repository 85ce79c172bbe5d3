"""Head: trains the new last layer on cached embeddings.

Takes embeddings and labels, gives weights and a bias. A solver of its own: all settings and folds
are solved together, which no library does (``docs/explanation/head.md`` has the figures). Imports
``errors``, ``last_layer``, ``machine``, ``types``, NumPy and threadpoolctl.
"""

from tlpipe.stages.head.baselines import train_baseline
from tlpipe.stages.head.optimum import GAP
from tlpipe.stages.head.rows import SCALINGS, InMemory, Scaling, Vectors
from tlpipe.stages.head.search import Trial
from tlpipe.stages.head.trained import AnyHead, Head, HeldOut, probabilities_of
from tlpipe.stages.head.training import (
    HeadOptions,
    train,
)

__all__ = [
    "GAP",
    "SCALINGS",
    "AnyHead",
    "Head",
    "HeadOptions",
    "HeldOut",
    "InMemory",
    "Scaling",
    "Trial",
    "Vectors",
    "probabilities_of",
    "train",
    "train_baseline",
]
